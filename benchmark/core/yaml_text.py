"""YAML as people mean it: what YAML 1.1 would read otherwise in silence is refused, and no text is too much for it."""

from __future__ import annotations

import re
from typing import Any

import yaml

from ddbench.benchmark.core.errors import UsageError

MOST_BYTES = 2**20
MOST_NODES = 100_000
"""Values of a text, each repeated one counted: a few lines of anchors can stand for billions."""
MOST_LEVELS = 100
"""Of lists and mappings in one another. Python's own limit is no bound: libraries raise it."""
TOO_DEEP = f"it is nested too deeply (more than {MOST_LEVELS} levels), or an anchor contains itself"
DATE = "tag:yaml.org,2002:timestamp"
NOT_DECIMAL = re.compile(r"[-+]?(0[0-9_]+|[0-9_]+(:[0-5]?[0-9])+(\.[0-9_]*)?)")
"""`010`, which YAML 1.1 reads as eight, and `1:30`, which it reads as ninety."""


class _Loader(yaml.SafeLoader):
    """Dates are text, as an option may look like one; keys are there once; numbers are decimal; texts are printable."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as in the class above
        first: [(tag, pattern) for tag, pattern in resolvers if tag != DATE]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value == "<<":
                raise _problem(key, "merge keys (<<) are not taken; write the options out")
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise _problem(key, f"the key {key.value!r} is there twice")
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)

    def decimal(self, node: yaml.ScalarNode) -> Any:
        if NOT_DECIMAL.fullmatch(node.value):
            raise _problem(node, f"{node.value} would be read as another number; write it in decimal, or in quotes")
        if node.tag.endswith(":float"):
            return self.construct_yaml_float(node)
        return self.construct_yaml_int(node)

    def text(self, node: yaml.ScalarNode) -> Any:
        if not all(character.isprintable() or character in "\n\t" for character in node.value):
            raise _problem(node, f"a text with control characters, {node.value!a}")
        return self.construct_yaml_str(node)


_Loader.add_constructor("tag:yaml.org,2002:str", _Loader.text)
for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.decimal)


def _problem(node: yaml.Node, problem: str) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def load_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        UsageError: not YAML, a key twice, a number or a tag that says something else than it seems to, or a text that
            stands for too much; one line, without the name of the file.
    """
    if len(text) > MOST_BYTES:
        raise UsageError(f"{len(text):,} characters; expected at most {MOST_BYTES:,}")
    try:
        _check_levels(text)
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > MOST_NODES:
            raise UsageError(f"its anchors stand for more than {MOST_NODES:,} values; write them out")
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.context_mark or error.problem_mark  # where it began that does not end
        where = "" if mark is None or "\n" not in text else f"line {mark.line + 1}: "
        raise UsageError(where + _one_line(error.problem or error)) from None
    except UsageError:
        raise
    except Exception as error:  # values under a tag that they do not fit raise whatever their conversion stumbles over
        raise UsageError(f"a value does not fit its type ({_one_line(error)})") from None


def _check_levels(text: str) -> None:
    level = 0
    for event in yaml.parse(text, Loader=_Loader):
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if level > MOST_LEVELS:
            raise UsageError(TOO_DEEP)


def _size(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Number of values that a node stands for, one that anchors repeat counted each time.

    Args:
        known: node -> its size; None while it is being counted.
    """
    if id(node) not in known:
        known[id(node)] = None
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        inner = (one for part in parts for one in (part if isinstance(part, tuple) else (part,)))
        known[id(node)] = 1 + sum(_size(one, known) for one in inner)
    size = known[id(node)]
    if size is None:
        raise UsageError(TOO_DEEP)
    return size


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
