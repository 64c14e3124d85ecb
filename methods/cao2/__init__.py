"""CaO2: the samples that a classifier is surest of, refined under the prior."""
