"""docs/field.md from the carried numbers and the registry: `python -P tests/reports/field_document.py`."""

from __future__ import annotations

from collections import Counter, defaultdict

from ddbench.benchmark.core.registry import DATASETS, METHODS, PROTOCOLS
from ddbench.reports.analyses import field
from ddbench.reports.analyses.field import FieldCell

FEWEST = 5
"""Published numbers of a method, from which on it has a line of its own."""
HEAD = """# The field

Which methods papers of 2023 to 2026 print beside their own, and where each stands here. The numbers are the carried
ones (`reports/reference/paper_numbers.csv`), {cells} accuracies of {papers} papers: {can} can be run with one command,
{cannot} cannot, and the site's page "Field" (`bench report`) shows every one of them with its command or its reason.
`bench list studies` has a study for each paper with numbers that can be run.

This page is written from data by `python -P tests/reports/field_document.py > docs/field.md`; a test holds that.
"""


def main() -> None:
    print(document(), end="")


def document() -> str:
    cells = field.build([])
    counts = field.counts(cells)
    papers = len({cell.paper.arxiv for cell in cells if cell.paper.arxiv})
    head = HEAD.format(cells=len(cells), papers=papers, can=counts["can be run"], cannot=counts["cannot"])
    parts = [head, *_methods(cells), *_names("Evaluators", PROTOCOLS), *_names("Datasets", DATASETS)]
    return "\n".join(parts) + "\n"


def _methods(cells: list[FieldCell]) -> list[str]:
    found: dict[str, list[FieldCell]] = defaultdict(list)
    for cell in cells:
        found[_base(cell)].append(cell)
    lines = ["## Methods", "", "| method | published numbers | can be run | what stands here |", "|:--|--:|--:|:--|"]
    ordered = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    for name, members in ordered:
        if len(members) < FEWEST:
            continue
        can = sum(cell.standing != "cannot" for cell in members)
        lines.append(f"| {name} | {len(members)} | {can} | {_standing(name, members)} |")
    rest = [name for name, members in ordered if len(members) < FEWEST]
    return [*lines, "", f"Fewer than {FEWEST} numbers each: {', '.join(sorted(rest, key=str.lower))}.", ""]


def _base(cell: FieldCell) -> str:
    """A method's registered name, an ablation's that of its method, or what of the printed name is the method."""
    if cell.method:
        name = cell.method.partition("[")[0]
        if name not in METHODS:
            return name
        entry = METHODS.entry(name)
        return (entry.variant_of if "ablation" in entry.tags else None) or name
    return field.known_of(cell.paper.printed_as) or cell.paper.printed_as


def _standing(name: str, members: list[FieldCell]) -> str:
    if name in METHODS:
        why = Counter(cell.how for cell in members if cell.standing == "cannot").most_common(1)
        cannot = f"; of the others most cannot: {why[0][0]}" if why else ""
        return f"registered{cannot}"
    return METHODS.unavailable.get(name, "the setting of these rows has no name here")


def _names(title: str, registry: object) -> list[str]:
    unavailable: dict[str, str] = registry.unavailable  # type: ignore[attr-defined]
    return [f"## {title} that are not here", "", *(f"- `{name}`: {why}" for name, why in unavailable.items()), ""]


if __name__ == "__main__":
    main()
