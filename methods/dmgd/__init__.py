"""DMGD: guidance by semantic matching and by matching distributions."""
