"""Leaderboards and comparisons as data."""
