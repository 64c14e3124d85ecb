"""`make fuzz`: rounds of the fuzz tests with other inputs each, until the time is over."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--benchmark-disable", "--tb=short")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--minutes", type=float, default=60.0, help="no round begins later")
    options.add_argument("--times", type=int, default=10, help="inputs of a round, in those of the suite")
    options.add_argument("--seed", type=int, default=1, help="of the first round; the next has the next")
    given = options.parse_args()
    began, status = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="ddbench-fuzz-") as folder:
        tally = Path(folder) / "tally"
        environment = {**os.environ, "DDBENCH_FUZZ": str(given.times), "DDBENCH_FUZZ_TALLY": str(tally)}
        for seed in itertools.count(given.seed):
            command = (*PYTEST, f"--hypothesis-seed={seed}", str(HERE))
            status |= subprocess.run(command, cwd=HERE.parents[1], env=environment).returncode
            minutes = (time.monotonic() - began) / 60
            lines = tally.read_text().splitlines() if tally.exists() else []
            counted = sum((Counter(json.loads(line)) for line in lines), Counter())
            failed = "some failed" if status else "none failed"
            print(f"seed {seed}: {counted.total():,} inputs in {minutes:.1f} minutes, {failed}", flush=True)
            if minutes > given.minutes:
                break
    for name, count in sorted(counted.items()):
        print(f"  {name:40} {count:9,}")
    return status


if __name__ == "__main__":
    sys.exit(main())
