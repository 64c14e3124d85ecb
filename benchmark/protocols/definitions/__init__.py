"""The protocols themselves, as data: one file a family."""
