"""What can be set of a program that is run as a method."""

from __future__ import annotations

import hashlib
import re
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ddbench.methods import base

PLACEHOLDERS = ("out", "ipc", "seed", "classes", "class_file", "train_dir", "device", "image_size")
SOURCE_SUFFIXES = {".py", ".sh", ".yaml", ".yml", ".json", ".toml", ".cfg", ".ini", ".txt"}
"""Files of a program's folder that are hashed: its text, not its weights and results."""


class ExternalParams(base.Params):
    command: Annotated[
        str,
        Field(
            description="The program and its arguments, split as a shell would but run without one. {out}: the "
            "folder to write to; {ipc}, {seed}, {device}, {image_size}; {classes}: class ids with commas; "
            "{class_file}: a file with one class id a line; {train_dir}: training images as "
            "<class id>/<name>.png, written on demand."
        ),
    ] = ""
    env: Annotated[
        str,
        Field(description="NAME=value pairs for the program's environment, separated by spaces; same placeholders."),
    ] = ""
    working_directory: Annotated[
        str, Field(description="Folder in which the program is started; empty: a new, empty one.")
    ] = ""
    program: Annotated[
        str,
        Field(
            description="The program's file, or folder of source files: their SHA-256 becomes part of the cell's "
            "identity, so that an edited program reuses no old result."
        ),
    ] = ""
    program_sha256: Annotated[
        str,
        Field(
            description="SHA-256 of `program`, filled in when a run is planned; a program that has changed since is "
            "refused."
        ),
    ] = ""
    images: Annotated[
        str, Field(description="Folder in which the class folders lie when the program has finished.")
    ] = "{out}"
    class_order: Annotated[
        str,
        Field(
            description="Which of its folders is which class: a file of lines `folder class-id`, or of class ids alone "
            "for folders numbered from 0; `imagenet`, `sorted` or `dataset`, as `bench eval --class-order`. Empty: "
            "folders are named by class id."
        ),
    ] = ""
    surplus: Annotated[
        Literal["refuse", "first", "lexicographic"],
        Field(description="What to do with more images than the IPC: refuse, or keep the first, as `--subset`."),
    ] = "refuse"
    timeout_seconds: Annotated[float, Field(gt=0, description="Seconds after which the program is ended.")] = (
        7 * 24 * 3600.0
    )

    @field_validator("command", "env", "images")
    @classmethod
    def _placeholders(cls, text: str) -> str:
        unknown = sorted(set(re.findall(r"\{(\w+)\}", text)) - set(PLACEHOLDERS))
        if unknown:
            known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            raise ValueError(f"unknown placeholder {{{unknown[0]}}}; known: {known}")
        try:
            shlex.split(text)
        except ValueError as error:
            raise ValueError(f"{text!r} cannot be split into words: {error}") from error
        return text

    @field_validator("env")
    @classmethod
    def _assignments(cls, text: str) -> str:
        for word in shlex.split(text):
            if not re.match(r"[A-Za-z_]\w*=", word):
                raise ValueError(f"expected NAME=value pairs, got {word!r}")
        return text

    @model_validator(mode="before")
    @classmethod
    def _hash_program(cls, given: Any, info: ValidationInfo) -> Any:
        if base.is_noted(info):
            return given
        if isinstance(given, dict) and given.get("program") and not given.get("program_sha256"):
            return {**given, "program_sha256": source_sha256(Path(str(given["program"])).expanduser())}
        return given


def source_sha256(program: Path) -> str:
    """SHA-256 of a file; of a folder, over its source files' names and contents.

    Raises:
        ValueError: there is no such file or folder, or no source file in it.
    """
    if program.is_file():
        return hashlib.sha256(program.read_bytes()).hexdigest()
    files = [
        path
        for path in sorted(program.rglob("*"))
        if path.suffix in SOURCE_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(program).parts)
    ]
    if not files:
        raise ValueError(f"program {program}: there is no such file, nor a folder with source files")
    whole = hashlib.sha256()
    for path in files:
        whole.update(f"{path.relative_to(program).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return whole.hexdigest()
