"""Studies that come with the benchmark: a paper's table as one YAML file."""
