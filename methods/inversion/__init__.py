"""Inverting classifiers: images optimised until the statistics that BatchNorm layers keep are theirs."""
