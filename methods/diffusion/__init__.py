"""What diffusion methods share: prior, sampler, guidance, noise, schedule and latents."""
