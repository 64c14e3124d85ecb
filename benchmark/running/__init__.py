"""The run as a whole: what runs when, how long it will take, what is seen of it."""
