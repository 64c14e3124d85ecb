"""What a user is told when code of an author, a plugin's or a package's, fails while a command reads or plans."""

from __future__ import annotations

import traceback

from ddbench.benchmark.core.registry import DATASETS, METHODS, PLUGIN_MODULE, PROTOCOLS


def failure(error: BaseException) -> str | None:
    """The error, and the calls that led to it from the first that is the author's on; None: it is none of an author's.

    A cell's failure is told in its folder; here are the calls outside cells, such as `Dataset.train_counts`.
    """
    entries = [entry for registry in (METHODS, DATASETS, PROTOCOLS) for entry in registry.entries().values()]
    theirs = {entry.target.partition(":")[0].partition(".")[0] for entry in entries} - {"", "ddbench"}
    frames = list(traceback.walk_tb(error.__traceback__))
    for index, (frame, _) in enumerate(frames):
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith(PLUGIN_MODULE) or module.partition(".")[0] in theirs:
            calls = traceback.StackSummary.extract(iter(frames[index:]), lookup_lines=True)
            what = traceback.format_exception_only(error)[-1].strip()
            return f"the code of {calls[0].filename} failed: {what}\n{''.join(calls.format()).rstrip()}"
    return None
