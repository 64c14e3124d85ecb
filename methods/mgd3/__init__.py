"""MGD3: guidance to the modes of a class's latents."""
