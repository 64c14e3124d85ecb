"""Results that travel: bundles of them, what of a result can be recomputed, and merging what others have made."""
