"""Minimax Diffusion: a prior fine-tuned for representative and diverse images."""
