"""RDED: crops of real images that a classifier finds most like their class."""
