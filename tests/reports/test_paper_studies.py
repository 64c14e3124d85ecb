"""The studies of papers, and the page of the field, hold what the carried numbers and the registry say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from ddbench.benchmark.planning.run_spec import RunSpec
from ddbench.benchmark.planning.study import find_study, study_names
from ddbench.reports.analyses import field


def written_by(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_the_field_is_written_from_the_numbers() -> None:
    page = Path(__file__).parents[2] / "docs" / "field.md"
    again = "write it again: python -P tests/reports/field_document.py > docs/field.md"
    assert page.read_text(encoding="utf-8") == written_by("field_document").document(), again


def test_methods_have_lines_of_their_own_on_that_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "field.md").read_text(encoding="utf-8")
    counts = {cells[1].strip(): int(cells[2]) for line in page.splitlines() if len(cells := line.split("|")) == 6
              and cells[2].strip().isdigit()}  # fmt: skip
    numbers = field.build([])
    for name in ("sre2l", "cda", "cv-dd", "fadrm", "edc", "dit"):
        assert counts[name] >= sum(cell.method == name for cell in numbers) > 0
        assert counts[name] < 60, "variants that are methods are not added up"


def test_the_studies_are_those_of_the_numbers() -> None:
    module = written_by("paper_studies")
    again = "write them again: python -P tests/reports/paper_studies.py"
    written = {path.name: path.read_text(encoding="utf-8") for path in module.FOLDER.glob("paper-*.yaml")}
    assert written == module.studies(), again
    assert len(written) >= 8


def test_every_cell_of_a_paper_is_in_its_study() -> None:
    study = find_study("paper-mgd3")
    planned = {
        (method, dataset, str(ipc), spec.protocol, spec.student)
        for options in study.runs
        for spec in [RunSpec.model_validate({**options})]
        for method in spec.methods
        for dataset in spec.datasets
        for ipc in spec.ipc or ()
    }
    cells = [c for c in field.build([]) if c.paper.arxiv == "2505.18963" and c.standing != "cannot" and c.ipc != "full"]
    for cell in cells:
        method = cell.method or ""
        protocol = field.protocol_here(method, cell.protocol, cell.paper.arxiv)
        student = field.student_here(protocol, cell.student)
        assert (method, cell.dataset, cell.ipc, protocol, student) in planned


def test_every_paper_with_numbers_that_can_be_run_has_a_study() -> None:
    sources = {line for path in written_by("paper_studies").FOLDER.glob("paper-*.yaml")
               for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("source:")}  # fmt: skip
    papers = {cell.paper.arxiv for cell in field.build([]) if cell.paper.arxiv and cell.standing != "cannot"}
    assert [paper for paper in papers if not any(f"arXiv {paper}," in line for line in sources)] == []


def test_a_study_names_the_prior_of_its_numbers() -> None:
    assert {RunSpec.model_validate({**options}).prior for options in find_study("paper-coda").runs} == {"sdxl"}
    d4m = [RunSpec.model_validate({**options}) for options in find_study("paper-d4m").runs]
    assert {(*spec.methods, spec.prior) for spec in d4m} == {("d4m", "sd-1.5"), ("sre2l", None)}, "D4M's own prior"
    of_others = [cell for cell in field.build([]) if cell.paper.printed_as == "DiT + D4M"]
    assert {(cell.method, cell.prior) for cell in of_others} == {("d4m", None)}


def test_papers_are_listed() -> None:
    assert {"paper-dmgd", "paper-mgd3", "paper-minimax"} <= set(study_names())
