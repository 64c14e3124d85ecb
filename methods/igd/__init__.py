"""IGD: guidance by influence on a surrogate's training, and away from what is there."""
