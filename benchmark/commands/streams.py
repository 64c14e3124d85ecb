"""Standard streams as whoever started the program left them: closed ones, and ones that cannot hold every letter."""

from __future__ import annotations

import codecs
import io
import os
import sys

STANDARD = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def mend_standard_streams() -> None:
    """Give a closed stream an end that goes nowhere, and write letters that an encoding lacks as `\\uXXXX`.

    A closed descriptor would be that of the next file that is opened, where a library or a child process then prints.
    The escapes are those of JSON, so that machine-readable output says the same in every encoding.
    """
    for descriptor, (name, mode) in enumerate(STANDARD):
        try:
            os.fstat(descriptor)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)  # takes the lowest descriptor: this one
            os.set_inheritable(nowhere, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115 - lives as long as we do
    codecs.register_error("ddbench.escape", _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors="ddbench.escape")


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2)), error.end
