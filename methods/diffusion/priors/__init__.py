"""Priors as files: their metadata, catalogue, installation, training and cards."""
