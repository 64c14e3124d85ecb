"""D3HR: groups of samples drawn from the statistics of inverted latents."""
