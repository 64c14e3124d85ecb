"""The static site: a results folder as pages that need no server."""
