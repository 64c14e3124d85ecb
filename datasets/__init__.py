"""Datasets and their fixed splits. `base` is the contract."""
