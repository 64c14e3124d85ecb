"""One page for each distilled set: everything known of it and of its students."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ddbench.benchmark.core.registry import DATASETS
from ddbench.benchmark.core.result import Phase, Result
from ddbench.benchmark.core.spec import MethodSpec, digest
from ddbench.reports.results.command_line import command
from ddbench.reports.results.groups import Row, ipc_text
from ddbench.reports.results.origins import mixed, origin_of
from ddbench.reports.results.parameters import Origin, origin
from ddbench.reports.results.rows import EvaluateCell, Problem
from ddbench.reports.robustness.table import Seen
from ddbench.reports.site import robustness_page
from ddbench.reports.site.model import Run, Site, run_id
from ddbench.reports.site.pictures.charts import Series, line_chart
from ddbench.reports.site.pictures.sheets import Sheet
from ddbench.reports.site.render import Page

SECTION = "Runs"
PATH = "runs/index.html"
ENVIRONMENTS = "runs/environments.html"
PUBLIC_ENVIRONMENT = ("python", "platform", "versions", "source", "hardware", "device", "determinism")
"""Keys of `environment.capture` that may be published: no variables, and nothing that other programs have noted."""
RECORDED_CHARACTERS = 2000
"""The most that is shown of what a method recorded; in full it lies in the run's result.json."""


@dataclass(frozen=True)
class PhaseSum:
    """The phases of one name."""

    name: str
    seconds: float
    cached_seconds: float
    """Original cost of what came from a cache."""
    times: int


@dataclass(frozen=True)
class Trained:
    """The students of a set that share protocol, network and teacher."""

    protocol: str
    student: str
    table_path: str | None
    cells: Sequence[EvaluateCell]
    curves: Markup
    seen: list[tuple[int, Seen]]
    """(the student's seed, a look at it on a shifted test set)."""
    command: str


def pages(site: Site) -> list[Page]:
    """A page for each run, their list, and one with all environments."""
    runs = list(site.runs.values())
    found = [_page(site, run) for run in runs]
    found.append(Page(PATH, "runs.html", "Runs", SECTION, {"runs": runs, "site": site}))
    all_of_them = [of for run in runs for result in _results(run) for of in result.environments]
    named = {environment_id(environment): environment for environment in all_of_them}
    shown = [(name, _json(public_environment(site, of))) for name, of in sorted(named.items())]
    found.append(Page(ENVIRONMENTS, "environments.html", "Environments", SECTION, {"environments": shown}))
    return found


def shown_set(site: Site, run: Run) -> str | None:
    """Hash of the set whose pictures stand for the run; None where it has none, or they are not for all."""
    hidden = run.spec.ipc is None or not class_ids(run.spec.dataset.name) or not site.shows_images(run)
    return None if hidden else run.image_set_sha256


def sheet_of(site: Site, run: Run) -> Sheet | Problem | None:
    """The run's contact sheet, or why it is left out; None where there is nothing to show."""
    return site.sheets.get(shown_set(site, run) or "")


def first_run(site: Site, row: Row) -> Run | None:
    """That of a table's row whose set has the smallest seed."""
    made = row.sets
    return site.runs.get(run_id(made[0].students[0].cell)) if made else None


def class_ids(dataset: str) -> tuple[str, ...]:
    """In label order; none for a dataset that is not registered here."""
    return DATASETS.load(dataset).class_ids if dataset in DATASETS else ()


def class_names(dataset: str) -> tuple[str, ...]:
    return DATASETS.load(dataset).class_names if dataset in DATASETS else ()


def environment_id(environment: dict[str, Any]) -> str:
    return digest(environment)[:10]


def public_environment(site: Site, environment: dict[str, Any]) -> dict[str, Any]:
    """Where everybody sees it, only what says how a number came about."""
    return {key: value for key, value in environment.items() if not site.public or key in PUBLIC_ENVIRONMENT}


def _results(run: Run) -> list[Result]:
    made = [run.distill.result] if run.distill is not None else []
    return [r for r in [*made, *(cell.result for cell in run.students)] if r is not None]


def _page(site: Site, run: Run) -> Page:
    distill = run.distill
    result = distill.result if distill is not None else None
    spec = distill.spec.method if distill is not None else next((r.method for r in _results(run)), None)
    found = sheet_of(site, run)
    seed = "" if distill is None else f" · set {distill.spec.seed}"
    return Page(
        run.path,
        "run.html",
        f"{run.label} · {run.spec.dataset.name} · {ipc_text(run.spec.ipc)}{seed}",
        SECTION,
        {
            "run": run,
            "from_bundles": origin_of([distill, *run.students]),
            "spec": spec,
            "parameters": _parameters(site, spec) if spec is not None else Markup(""),
            "origin": origin(run.label, spec, run.spec.dataset.name) if spec is not None else Origin(known=False),
            "result": result,
            "data": next((r.dataset for r in _results(run) if r.dataset is not None), None),
            "sheet": found if isinstance(found, Sheet) else None,
            "left_out": found if isinstance(found, Problem) else None,
            "class_ids": class_ids(run.spec.dataset.name),
            "hidden_images": not site.shows_images(run),
            "phases": phase_sums(result.cost.phases) if result is not None and result.cost is not None else [],
            "guidance": _guidance(site, result.guidance) if result is not None else Markup(""),
            "recorded": _json(result.recorded)[:RECORDED_CHARACTERS] if result and result.recorded else "",
            "trained": _trained(site, run),
            "robustness_path": robustness_page.PATH if site.robustness.looked else None,
            "distill_command": command(distill, []) if distill is not None else None,
            "environments": sorted({environment_id(of) for r in _results(run) for of in r.environments}),
            "mixed": _mixed(_results(run)),
            "commits": sorted({commit for r in _results(run) for of in r.environments if (commit := _commit(of))}),
            "environments_path": ENVIRONMENTS,
            "plugins": sorted({(name, sha) for r in _results(run) for name, sha in r.plugins.items()}),
        },
    )


def _parameters(site: Site, spec: MethodSpec) -> Markup:
    """`key=value, …`, sorted; put together here, since a template takes its time over each piece."""
    ordered = sorted(spec.params.items(), key=lambda item: item[0].lower())
    return Markup(", ").join(site.shown(f"{key}={value}") for key, value in ordered)


def phase_sums(phases: Sequence[Phase]) -> list[PhaseSum]:
    """Phases of one name added up, in the order in which they first came."""
    by_name: dict[str, list[Phase]] = defaultdict(list)
    for phase in phases:
        by_name[phase.name].append(phase)
    return [
        PhaseSum(name, sum(p.seconds for p in these), sum(p.cold_seconds or 0.0 for p in these), len(these))
        for name, these in by_name.items()
    ]


def _trained(site: Site, run: Run) -> list[Trained]:
    kinds: dict[tuple[str | None, ...], list[EvaluateCell]] = defaultdict(list)
    for cell in run.students:
        spec = cell.spec
        kinds[spec.protocol.label, spec.protocol.hash, spec.student, spec.teacher_sha256].append(cell)
    found = []
    for unordered in kinds.values():
        cells = sorted(unordered, key=lambda cell: cell.spec.seed)
        protocol, student = cells[0].spec.protocol.label, cells[0].spec.student
        view = site.table_of.get(cells[0].id)
        path = view.path if view is not None else None
        seen = [(cell.spec.seed, look) for cell in cells for look in site.seen.get(cell.student_id, [])]
        lines = [
            command(run.distill, cells, names) for names in _at_once(dict.fromkeys(look.test_on for _, look in seen))
        ]
        found.append(Trained(protocol, student, path, cells, _curves(cells), seen, "\n".join(lines)))
    return found


def _at_once(looked_at: Iterable[str]) -> list[list[str]]:
    """What `--test-on` takes in one command: each test set once, with one choice of its conditions."""
    commands: list[dict[str, str]] = [{}]
    for name in looked_at:
        test_set = name.partition("[")[0]
        with_room = next((one for one in commands if test_set not in one), None)
        if with_room is None:
            commands.append(with_room := {})
        with_room[test_set] = name
    return [list(one.values()) for one in commands]


def _curves(cells: Sequence[EvaluateCell]) -> Markup:
    looks = {f"student {cell.spec.seed}": cell.student.metrics.curve for cell in cells if cell.student is not None}
    series = [
        Series(name, [(look.epoch, look.accuracy, None, None) for look in curve])
        for name, curve in looks.items()
        if len(curve) > 1
    ]
    return line_chart(series, title="Accuracy during training", x_label="epoch", y_label="test accuracy %", height=220)


def _guidance(site: Site, guidance: dict[str, list[float]]) -> Markup:
    series = [
        Series(site.shown(term), [(index + 1, value, None, None) for index, value in enumerate(nats)])
        for term, nats in guidance.items()
        if len(nats) > 1
    ]
    return line_chart(
        series, title="Path KL by image", x_label="image of its class", y_label="path KL, nats", height=220
    )


def _mixed(results: Iterable[Result]) -> list[str]:
    """Which parts of which cells were made in another environment, each sentence once."""
    cells: dict[str, list[str]] = defaultdict(list)
    for result in results:
        for text in mixed(result):
            cells[text].append(result.cell)
    return [f"{', '.join(names)}: {text}" for text, names in cells.items()]


def _commit(environment: dict[str, Any]) -> str | None:
    source = environment.get("source")
    if not isinstance(source, dict) or not source.get("commit"):
        return None
    return f"{str(source['commit'])[:10]}{' (with changes)' if source.get('dirty') else ''}"


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)
