"""Where cells run: each engine starts them, watches them and ends them."""
