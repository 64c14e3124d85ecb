"""What a results folder holds, as rows: one per student and per set, with settings and published numbers."""
