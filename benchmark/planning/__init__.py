"""From what was asked for to a plan: the cells that answer it. Nothing here runs anything."""
