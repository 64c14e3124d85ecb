"""Soft-label evaluators beyond one teacher: committees, their losses, and a running mean of the student's weights."""
