"""How tables look: terminal, Markdown, CSV, JSON, LaTeX, Parquet, figures."""
