"""A small run that is killed 25 times ends as if nobody had touched it; `make chaos N=1000` kills more often."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

KILLS, SEED = 25, 0


def test_kills_change_nothing(tmp_path: Path) -> None:
    chaos = [sys.executable, str(Path(__file__).parent / "chaos.py")]
    ran = subprocess.run(
        [*chaos, "--kills", str(KILLS), "--seed", str(SEED), "--folder", str(tmp_path / "chaos")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    counted = json.loads(ran.stdout.splitlines()[-1])
    assert counted["kills"] == KILLS
    assert counted["rounds"] >= 3
    assert {"forked writer", "forked run"} <= counted.keys()
    assert any(key.startswith("users") for key in counted), "none was started as users start it"
