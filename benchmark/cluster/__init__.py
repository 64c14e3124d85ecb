"""Runs on a Slurm cluster: `bench submit` queues arrays of pilots, each a run on the shared results folder."""
