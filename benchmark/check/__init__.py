"""Does a method keep its contract? The checks behind `bench check`."""
