"""Leaderboards and comparisons as data, and the statistics behind them."""
