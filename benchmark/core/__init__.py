"""What everything stands on: errors, seeds, files, registry, specifications, results and where they lie."""
