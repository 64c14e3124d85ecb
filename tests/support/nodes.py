"""Processes that stand for machines: each with a host name and process numbers of its own, on one file system."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

UNSHARE = ["unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]


@cache
def _allowed() -> bool:
    if os.environ.get("CI"):
        return True  # there a test that cannot run has failed
    return subprocess.run([*UNSHARE, "true"], capture_output=True).returncode == 0


def command(host: str, *arguments: str | Path) -> list[str]:
    """The command line of `arguments` on the machine of that name. Skips where namespaces are not allowed."""
    if not _allowed():
        pytest.skip("this machine allows no namespaces to unprivileged users (unshare --uts --pid)")
    return [*UNSHARE, "sh", "-c", 'hostname "$0" && exec "$@"', host, *map(str, arguments)]


def python(host: str, code: str, *arguments: Path, environment: Mapping[str, str] = {}) -> subprocess.Popen[str]:
    """A Python process on the machine of that name."""
    return subprocess.Popen(
        command(host, sys.executable, "-P", "-c", code, *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
