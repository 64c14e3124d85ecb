"""What lets several processes, on one machine or many, work in one folder: who holds what, and for how long."""
