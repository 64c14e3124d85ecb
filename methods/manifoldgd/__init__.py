"""ManifoldGD: guidance to modes, and along the data near a mode."""
