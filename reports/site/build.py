"""`bench report`: a results folder becomes a folder of pages that open from disk and on any static host."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.files import read_regular, write_json
from ddbench.reports.results import rows
from ddbench.reports.results.filters import Filters
from ddbench.reports.results.rows import Problem
from ddbench.reports.site import (
    ablation_page,
    compare_page,
    field_page,
    how_many_page,
    index_page,
    overall_page,
    quality_page,
    reproduction_page,
    robustness_page,
    run_page,
    students_page,
    table_page,
)
from ddbench.reports.site.model import Site
from ddbench.reports.site.pictures.sheets import Sheet, write_sheets
from ddbench.reports.site.render import STATIC, Page, render

MANIFEST = "site.json"
"""Lists what the last build wrote: a later one removes what it no longer has, and nothing else."""

ENTRIES = (
    index_page, compare_page, overall_page, ablation_page, students_page, robustness_page, reproduction_page,
    field_page, quality_page, how_many_page, run_page,
)  # fmt: skip
NAVIGATION = [(entry.SECTION, entry.PATH) for entry in ENTRIES]
"""(section, path of its first page); a site has those whose page it has."""


NO_FILTERS = Filters()


@dataclass(frozen=True)
class Built:
    """What a build wrote."""

    index: Path
    pages: int
    pictures: int
    page_bytes: int
    """Bytes of everything but pictures."""
    left_out: Sequence[Problem]
    """Files of the results folder that are not in it."""


def build_site(
    out: Path,
    to: Path,
    *,
    filters: Filters = NO_FILTERS,
    public: bool = False,
    margin: float = 1.0,
    left_out: Sequence[Problem] = (),
    made: str = "",
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Built:
    """Write the site into a new or empty folder, or over a site that this command made.

    What is in it lies in the results folder, links followed; pictures have the hash that their result names.

    Args:
        out: the results folder.
        filters: which cells are shown.
        public: leave out what is not ours to publish: real images, and paths of this machine.
        margin: points within which two methods count as equivalent.
        left_out: what else is not in it, to be said with the rest.
        made: said at the foot of each page.
        progress: called with (what, done, total).

    Raises:
        UsageError: `out` is no results folder, no cell passes the filters, `to` holds something else, or a margin that
            is not positive.
    """
    if not 0 < margin <= 100:
        raise UsageError(f"--margin {margin}: expected points above 0, up to 100")
    before = _written_before(to)
    results = filters.apply(rows.read(out, follow_links=False))
    with rows.kept():
        return _write_site(
            Site(replace(results, problems=[*left_out, *results.problems]), public, margin), to, before, made, progress
        )


def _write_site(site: Site, to: Path, before: set[str], made: str, progress: Callable[[str, int, int], None]) -> Built:
    """Every page and picture; what an earlier build left there (`before`) and this one has not goes."""
    site = replace(site, sheets=_write_sheets(site, to, progress))
    pages = [page for maker in (*ENTRIES, table_page) for page in maker.pages(site)]
    paths = {page.path for page in pages}
    navigation = [(section, path) for section, path in NAVIGATION if path in paths]
    written, size = set[str](), 0
    for done, page in enumerate(pages):
        size += _write(to, page, navigation, made, public=site.public)
        written.add(page.path)
        progress("pages", done + 1, len(pages))
    for file in sorted(STATIC.iterdir()):
        size += _copy(file, to / "static" / file.name)
        written.add(f"static/{file.name}")
    pictures = _pictures(site, to)
    written |= pictures
    for path in before - written:
        (to / path).unlink(missing_ok=True)
    write_json(to / MANIFEST, {"made_by": "ddbench", "files": sorted(written)})
    return Built(to / "index.html", len(pages), len(pictures), size, site.problems)


def _written_before(to: Path) -> set[str]:
    """What an earlier build left in the folder."""
    if not to.exists():
        return set()
    if not to.is_dir():
        raise UsageError(f"--to {to}: expected a folder, and it is a file")
    if not any(to.iterdir()):
        return set()
    try:
        noted = json.loads(read_regular(to / MANIFEST))
        files = {str(path) for path in noted["files"]}
        ours = noted["made_by"] == "ddbench"
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise UsageError(f"--to {to}: it holds files that are no site of ddbench; give a new or empty folder")
    # The list lies in a folder that others can write to: nothing outside it is removed.
    return {path for path in files if (to / path).resolve().is_relative_to(to.resolve())}


def _write(to: Path, page: Page, navigation: list[tuple[str, str]], made: str, *, public: bool) -> int:
    path = to / page.path
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not flushed to the disk one by one, as results are: a site that was interrupted is built again.
    return path.write_bytes(render(page, navigation, made, public=public).encode())


def _copy(source: Path, target: Path) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return target.stat().st_size


def _write_sheets(site: Site, to: Path, progress: Callable[[str, int, int], None]) -> dict[str, Sheet | Problem]:
    """Contact sheets of all runs that may be shown, by their sets' hashes."""
    runs = site.runs.values()
    wanted = {sha256: run.spec.dataset.name for run in runs if (sha256 := run_page.shown_set(site, run))}
    done = iter(range(1, len(wanted) + 1))
    return write_sheets(site.results.store, to, wanted, lambda: progress("pictures", next(done), len(wanted)))


def _pictures(site: Site, to: Path) -> set[str]:
    """Every picture of the site; those of nearest real images are copied to it."""
    paths = {sheet.path for sheet in site.sheets.values() if isinstance(sheet, Sheet)}
    for run in site.runs.values():
        nearest = site.nearest(run)
        if nearest is not None:
            _copy(nearest.source, to / nearest.path)
            paths.add(nearest.path)
    return paths
