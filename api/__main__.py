"""`python -m ddbench` is `bench`."""

from ddbench.benchmark.commands.cli import main

if __name__ == "__main__":
    main()
