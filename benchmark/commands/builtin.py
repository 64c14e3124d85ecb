"""The commands of `bench` that are imported only when used, as data."""

from __future__ import annotations

from ddbench.benchmark.core.registry import Entry


def _verb(name: str, summary: str, module: str | None = None) -> Entry:
    own = name.replace("-", "_")
    return Entry(name, f"ddbench.benchmark.commands.{module or own}:{own}_app", summary)


ENTRIES: list[Entry] = [
    _verb("run", "Distill, train students, show the leaderboard."),
    _verb("distill", "The first stage alone: make distilled sets, train no students.", "run"),
    _verb("eval", "Train students on a distilled set that anything has made."),
    _verb("submit", "The same run on a Slurm cluster: queues pilots that share the cells."),
    _verb("stop", "End what `bench submit` queued, resumably."),
    _verb("pilot", "What a task of `bench submit` runs."),
    _verb("list", "What there is to run, run on, and be judged by."),
    _verb("env", "What results from this machine will say of it: versions, hardware, source."),
    _verb("doctor", "Do this machine and a results folder's file system give what runs need? Tried out."),
    _verb("train-prior", "Train a small pixel-space prior on a dataset's training images."),
    _verb("prepare", "Find a dataset's files; decode them once."),
    _verb("verify", "Count a dataset's images against the whole split."),
    _verb("new-method", "Write the files of a new method."),
    _verb("check", "Does a method keep its contract? A table of checks."),
    _verb("train-teacher", "Train the teacher of a dataset for protocols with soft labels."),
    _verb("tune", "Try parameters on the validation part of a dataset."),
    _verb("leaderboard", "Rank the methods of a results folder."),
    _verb("compare", "Compare methods of a results folder, pair by pair."),
    _verb("robust", "How far students' accuracy falls on shifted test sets (`bench run --test-on`)."),
    _verb("report", "Build a static site from a results folder."),
    _verb("figures", "Draw figures for a paper, as SVG and PDF."),
    _verb("quality", "Measure the distilled sets themselves."),
    _verb("bundle", "Put results, with all that proves them, into one file."),
    _verb("merge", "Take over results from bundles that others have made, once they are checked."),
    _verb("verify-results", "Recompute what can be of a results folder's numbers."),
    _verb("push", "Put a distilled set on the Hugging Face hub, with a card that has its results."),
    _verb("status", "What was asked for and where each cell stands."),
]
