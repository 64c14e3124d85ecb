"""The studies `benchmark/studies/paper-*.yaml`: of each paper, the published numbers that can be run, as one command.

They are made of the carried numbers and of what is registered: `python -P tests/reports/paper_studies.py` writes them
anew, and a test holds that nothing is missing.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from ddbench.reports.analyses import field
from ddbench.reports.analyses.field import FieldCell, protocol_here, student_here

FOLDER = Path(__file__).parents[2] / "benchmark" / "studies"
PAPERS = {
    "2306.13092": ("sre2l", "SRe2L"),
    "2311.15529": ("minimax", "Minimax Diffusion"),
    "2311.17950": ("g-vbsm", "G-VBSM"),
    "2311.18838": ("cda", "CDA"),
    "2312.03526": ("rded", "RDED"),
    "2404.13733": ("edc", "EDC"),
    "2406.10485": ("label-worth", "A Label is Worth a Thousand Images"),
    "2407.15138": ("d4m", "D4M"),
    "2409.17612": ("dwa", "DWA"),
    "2411.19946": ("delt", "DELT"),
    "2501.07575": ("cv-dd", "CV-DD"),
    "2505.18399": ("d3hr", "D3HR"),
    "2505.18963": ("mgd3", "MGD3"),
    "2506.22637": ("cao2", "CaO2"),
    "2506.23580": ("vlcp", "VLCP"),
    "2506.24125": ("fadrm", "FADRM"),
    "2510.17421": ("dap", "DAP"),
    "2512.03844": ("coda", "CoDA"),
    "2602.23295": ("manifoldgd", "ManifoldGD"),
    "2603.13960": ("ims3", "IMS3"),
    "2605.03877": ("dmgd", "DMGD"),
}
"""arXiv number -> (name of the study, what the paper is called)."""


def studies() -> dict[str, str]:
    """File name -> its text."""
    of_paper: dict[str, list[FieldCell]] = defaultdict(list)
    for cell in field.build([]):
        of_paper[cell.paper.arxiv].append(cell)
    texts = {f"paper-{name}.yaml": _study(arxiv, title, of_paper[arxiv]) for arxiv, (name, title) in PAPERS.items()}
    return {name: text for name, text in texts.items() if not text.endswith("runs:\n")}


def _study(arxiv: str, title: str, cells: list[FieldCell]) -> str:
    mine = [cell for cell in cells if cell.standing != "cannot"]
    lines = [
        f'title: "{title}: {len(mine)} of its {len(cells)} published numbers, those that can be run here"',
        f'source: "arXiv {arxiv}, with the rows of others that it prints"',
        "# Written by tests/reports/paper_studies.py from reports/reference/paper_numbers.csv.",
        "runs:",
    ]
    for (dataset, protocol, student, prior), methods in _blocks(mine).items():
        for ipcs, names in methods:
            what = f"methods: [{', '.join(names)}], datasets: [{dataset}]"
            on = f", prior: {prior}" if prior else ""
            lines.append(f"  - {{{what}, ipc: [{', '.join(ipcs)}], protocol: {protocol}, student: {student}{on}}}")
    return "\n".join(lines) + "\n"


Place = tuple[str, str, str, str]
"""(dataset, protocol, student, prior or nothing)."""


def _blocks(cells: list[FieldCell]) -> dict[Place, list[tuple[list[str], list[str]]]]:
    """Place -> (IPCs, methods): as few runs as have these cells and no others."""
    ipcs_of: dict[Place, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for cell in cells:
        method = cell.method or ""
        if cell.ipc == "full":  # the whole set is each IPC's companion
            continue
        protocol = protocol_here(method, cell.protocol, cell.paper.arxiv)
        place = (cell.dataset, protocol, student_here(protocol, cell.student), cell.prior or "")
        ipcs_of[place][_quoted(method)].add(cell.ipc)
    found = {}
    for place, methods in sorted(ipcs_of.items()):
        together: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for method, ipcs in methods.items():
            together[tuple(sorted(ipcs, key=int))].append(method)
        found[place] = [(list(ipcs), names) for ipcs, names in together.items()]
    return found


def _quoted(method: str) -> str:
    return f'"{method}"' if "[" in method else method


def main() -> None:
    for name, text in studies().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
