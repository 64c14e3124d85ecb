"""Figures for papers from leaderboards: by method, against cost, against IPC, and against published numbers."""
