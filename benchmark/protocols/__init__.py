"""The referee: student networks, augmentation, the training loop, and one file per evaluation protocol."""
