"""The command line as forks of one process that has imported what it needs: a command costs no second of imports.

Each has a process, a working folder, streams and an exit code of its own, as `bench` has. What a command imports first,
and what it costs to start, is not tested so.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


class ForkedBench:
    """Runs commands one after another."""

    def __init__(self, server: subprocess.Popen[str], folder: Path) -> None:
        self._server, self._streams = server, [folder / "stdout", folder / "stderr"]

    def __call__(self, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        asked = [list(map(str, arguments)), str(cwd), *map(str, self._streams)]
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps(asked), file=self._server.stdin, flush=True)
        code = int(self._server.stdout.readline())
        told = [stream.read_text(encoding="utf-8") for stream in self._streams]
        return subprocess.CompletedProcess(asked, code, *told)


@contextmanager
def forked_bench(environment: Mapping[str, str]) -> Iterator[ForkedBench]:
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            [sys.executable, "-P", __file__], env=dict(environment), text=True, stdin=-1, stdout=-1
        ) as server,
    ):
        yield ForkedBench(server, Path(folder))


def serve() -> None:
    from ddbench.benchmark.commands import builtin

    for entry in builtin.ENTRIES:
        importlib.import_module(entry.target.partition(":")[0])
    for line in sys.stdin:
        asked, cwd, *streams = json.loads(line)
        child = os.fork()
        if not child:
            _run(asked, cwd, streams)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _run(arguments: Sequence[str], cwd: str, streams: Sequence[str]) -> None:
    """As the interpreter runs the script `bench`."""
    from ddbench.benchmark.commands import cli

    os.chdir(cwd)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number, stream in enumerate(streams, 1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv[:] = ["bench", *arguments]
    code: object = 0
    try:
        cli.main()
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    serve()
