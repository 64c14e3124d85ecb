"""The two kinds of failure a user meets; each is shown as one message, never as a traceback."""


class UsageError(Exception):
    """What was asked for cannot be done as asked: exit code 2. The message says how to ask instead."""


class RunError(Exception):
    """What was asked for failed while it ran: exit code 1. The message says what to mend."""


class Problems(UsageError):
    """Several usage problems found in one pass, reported together."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))
