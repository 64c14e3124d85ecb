"""Kills a small run again and again, at changes to its results folder that a seed draws, and compares what is left.

    python tests/chaos/chaos.py --kills 100 --seed 0 --folder /tmp/chaos

A round: a run is killed (one that writes at that moment, the run itself, or the fork server), the same command goes on
and may be killed again, until one finishes; the folder must then hold what an undisturbed run's does, and no more. The
last line on standard output counts it all, as JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import runs
from facts import differences, facts

AS_USERS_DO_EVERY = 10
"""One kill in so many is of a run that is started as users start it, which takes many times as long."""
MOST_RUNS = 12
"""Runs after the last kill of a round in which it must have finished; a cell that was lost three times takes two."""
NEVER = 2**40


@dataclass
class Kill:
    """Where and how a run is to die."""

    change: int
    """At which change to the folder, counted from 1."""
    victim: str
    """`writer`: who makes the change; `run`; `server`: the process from which cells are forked."""
    after_seconds: float
    as_users_do: bool


@dataclass
class Chaos:
    """A session of kills in a folder."""

    folder: Path
    seed: int
    changes: int = 0
    """Changes that an undisturbed run makes."""
    counted: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self.log, self.count = self.folder / "log.txt", self.folder / "changes"

    def run(self, out: Path, kill: Kill | None) -> int:
        """One run, and its exit status."""
        self.count.unlink(missing_ok=True)
        aim = kill or Kill(NEVER, "writer", 0.0, as_users_do=False)
        watched = {
            "CHAOS_FOLDER": str(out),
            "CHAOS_COUNT": str(self.count),
            "CHAOS_LAST": str(aim.change),
            "CHAOS_VICTIM": aim.victim,
            "CHAOS_AFTER_SECONDS": str(aim.after_seconds),
        }
        start = runs.start_as_users_do if aim.as_users_do else runs.start_forked
        return runs.wait(start(out, watched, self.log))

    def undisturbed(self) -> dict[str, object]:
        """What a run leaves that nobody kills."""
        out = self.folder / "undisturbed"
        status = self.run(out, None)
        assert status == 0, self.complaint(f"the undisturbed run ended with {status}")
        self.changes = self.count.stat().st_size
        return facts(out)

    def next_kill(self) -> Kill:
        """Drawn from the seed."""
        as_users_do = self.draw.randrange(AS_USERS_DO_EVERY) == 0
        victims = ("writer", "run", "server", "server") if as_users_do else ("writer", "writer", "run")
        after = self.draw.choice([0.0, 0.0, self.draw.uniform(0, 0.05)])
        last = self.draw.choice([self.changes, self.changes // 4])  # what is left of a run that goes on is less
        return Kill(self.draw.randint(1, last), self.draw.choice(victims), after, as_users_do)

    def round(self, number: int, kills: int, expected: dict[str, object]) -> int:
        """Kill a run up to so many times, let it finish and look; returns how many kills there were.

        Raises:
            AssertionError: the folder is not as an undisturbed run leaves it.
        """
        out = self.folder / f"round-{number}"
        made, status, told = 0, -1, list[str]()
        while made < kills and status != 0:
            kill = self.next_kill()
            status = self.run(out, kill)
            struck = self.count.exists() and self.count.stat().st_size >= kill.change
            told.append(f"{kill} -> {status}{'' if struck else ', before it came to that'}")
            if struck:
                made += 1
                self.counted[f"{'users' if kill.as_users_do else 'forked'} {kill.victim}"] += 1
            assert struck or status == 0, self.complaint(f"a run that nobody killed ended with {status}", told)
        for _ in range(MOST_RUNS):
            if status == 0:
                break
            status = self.run(out, None)
            self.counted["runs to finish"] += 1
            told.append(f"undisturbed -> {status}")
        assert status == 0, self.complaint(f"the run did not finish, and ended with {status}", told)
        wrong = differences(facts(out), expected)
        assert not wrong, self.complaint("\n".join(wrong), told)
        shutil.rmtree(out)
        self.counted["rounds"] += 1
        return made

    def complaint(self, what: str, told: list[str] | None = None) -> str:
        """What went wrong, and all that is needed to see it again."""
        ends = self.log.read_text(errors="replace").splitlines()[-30:] if self.log.exists() else []
        return "\n".join([f"seed {self.seed}: {what}", *(told or []), f"the runs said last ({self.log}):", *ends])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True, help="made, and emptied round by round")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True)
    # Once, for all runs that are forked from here.
    import ddbench.benchmark.commands.run
    import ddbench.benchmark.engines.preload
    import ddbench.reports.output.formats
    import ddbench.reports.tables.leaderboard  # noqa: F401

    chaos = Chaos(asked.folder.resolve(), asked.seed)
    expected = chaos.undisturbed()
    made = 0
    while made < asked.kills:
        made += chaos.round(chaos.counted["rounds"], asked.kills - made, expected)
        print(f"{made} of {asked.kills} kills", file=sys.stderr, flush=True)
    print(json.dumps({"kills": made, "seed": asked.seed, "changes": chaos.changes, **chaos.counted}))


if __name__ == "__main__":
    main()
