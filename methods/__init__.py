"""The contestants. `base` is the contract; one file or folder per method."""
