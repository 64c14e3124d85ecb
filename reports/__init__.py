"""What people read: leaderboards and the statistics behind them. Nothing here imports torch."""
