"""The counts behind the model of a GPU: closed forms, a published count, and the table that the documents show."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent))
import gpu_model
from gpu_model import Device, Model, Work, work

DOCUMENT = Path(__file__).parents[2] / "docs" / "performance.md"


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


def test_products_are_counted_apart_from_what_is_only_moved() -> None:
    a, b = torch.zeros(3, 5, device="meta"), torch.zeros(5, 7, device="meta")
    assert work(lambda: a @ b) == Work(2 * 3 * 5 * 7, 4 * (15 + 35 + 21), 0)
    assert work(lambda: a.relu()) == Work(0, 0, 4 * (15 + 15))
    assert work(lambda: a.t().reshape(5, 3, 1)[1:]) == Work(0, 0, 0), "views move nothing"


def test_attention_reads_its_inputs_and_writes_its_output_alone() -> None:
    q = torch.zeros(2, 3, 64, 8, device="meta")
    one = work(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q))
    assert one.flops == 2 * 2 * (2 * 3) * 64 * 64 * 8, "scores, and their products with the values"
    assert one.other_bytes == 0
    assert one.product_bytes < 4 * (4 * q.numel() + 64 * 64), "no scores among them"


def test_a_call_takes_its_operations_or_its_bytes_and_then_what_is_left() -> None:
    assert Work(6, 2, 8).seconds(2, 4) == 6 / 2 + 8 / 4
    assert Work(1, 8, 4).seconds(2, 4) == 8 / 4 + 4 / 4, "products too small to keep the units busy"
    assert Work(6, 2, 8).seconds(2, 4, fused=True) == 6 / 2


def test_dit_xl_2_takes_what_its_paper_says(model: Model) -> None:
    # 118.64 G multiply-adds a forward pass at 256 px (Peebles & Xie, arXiv 2212.09748, table 4), two passes an image
    assert model.step(10, "fp32").flops == pytest.approx(10 * 2 * 2 * 118.64e9, rel=2e-3)
    assert model.step(10, "bf16").product_bytes == pytest.approx(model.step(10, "fp32").product_bytes / 2, rel=1e-3)


def test_the_documents_table_is_the_scripts(
    model: Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_model, "Model", lambda: model)
    gpu_model.main()
    printed = capsys.readouterr().out.strip().splitlines()
    documented = DOCUMENT.read_text(encoding="utf-8").splitlines()
    for row in printed[2:]:
        assert any(line.startswith(row) for line in documented), f"docs/performance.md lacks {row}"


def test_a_device_twice_as_fast_takes_half_as_long(model: Model) -> None:
    slow = gpu_model.expected(model, Device("slow", 1e14, 2e14, 1e12))
    fast = gpu_model.expected(model, Device("fast", 2e14, 4e14, 2e12))
    for name, value in slow.items():
        assert fast[name] == pytest.approx(2 * value if "per_second" in name else value / 2)
