"""IMS3's selective subgroup sampling: of several groups of samples of each class, one is kept."""
