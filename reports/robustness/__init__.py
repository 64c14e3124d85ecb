"""How accuracy falls on shifted test sets (`bench robust`)."""
