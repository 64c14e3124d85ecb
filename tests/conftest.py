"""Shared fixtures: golden cases by listing, and tiny random priors."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from coverage_guard import CoverageGuard

# Before torch is imported: spinning OpenMP threads make tests crawl on a machine that does anything else.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

SMALL = Path(__file__).parent / "golden_small"
GOLDEN = Path(os.environ.get("DDBENCH_GOLDEN") or Path(__file__).parents[2] / "shared" / "golden")


LONGEST = (
    "conformance/test_method_contract.py", "speed/test_gpu_checks.py", "gpu/test_small_runs.py", "chaos/test_chaos.py",
    "benchmark/commands/test_bad_input.py", "benchmark/cells/test_resume.py", "engines/test_slurm.py",
)  # fmt: skip
"""Files that take longest, which a process each begins with: at the end the others would wait for them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {str(Path(__file__).parent / name): place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(str(item.path), len(LONGEST)))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "golden(kind): run the test for every case folder of that kind")
    config.pluginmanager.register(CoverageGuard("tests/conformance/"), "coverage guard")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`golden_case` is each case folder: those that come with the tests, then those of $DDBENCH_GOLDEN."""
    if "golden_case" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("golden")
        assert mark is not None, "a test of golden_case needs @pytest.mark.golden(kind)"
        small, golden = (
            sorted(path.parent for path in (root / mark.args[0]).glob("*/case.json")) for root in (SMALL, GOLDEN)
        )
        cases: list[Any] = [pytest.param(path, id=f"small/{path.name}") for path in small]
        cases += [pytest.param(path, id=path.name) for path in golden]
        if not golden:
            absent = pytest.mark.skip(reason=f"no golden cases at {GOLDEN}; set DDBENCH_GOLDEN")
            cases.append(pytest.param(None, id="golden", marks=absent))
        metafunc.parametrize("golden_case", cases)


@pytest.fixture
def golden() -> Path:
    """The folder of golden cases; skips where it is absent."""
    if not GOLDEN.is_dir():
        pytest.skip(f"no golden cases at {GOLDEN}; set DDBENCH_GOLDEN")
    return GOLDEN


@pytest.fixture
def make_prior(tmp_path: Path) -> Callable[..., Path]:
    """Writes a tiny pixel prior with random weights (blocks not the identity) and returns its folder."""

    def make(
        class_ids: tuple[str, ...] = ("a", "b", "c"),
        *,
        channels: int = 1,
        image_size: int = 8,
        width: int = 32,
        learned_variance: bool = False,
        seed: int = 0,
        name: str = "tiny",
        **metadata: Any,
    ) -> Path:
        import torch
        from diffusers import DiTTransformer2DModel

        from ddbench.methods.diffusion.network import DenoisingNetwork
        from ddbench.methods.diffusion.priors.metadata import NoiseScheduleMetadata, PriorMetadata

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            transformer = DiTTransformer2DModel(
                num_attention_heads=2,
                attention_head_dim=width // 2,
                in_channels=channels,
                out_channels=channels * (2 if learned_variance else 1),
                num_layers=2,
                sample_size=image_size,
                patch_size=2,
                num_embeds_ada_norm=len(class_ids),
                norm_eps=1e-6,
            )
        blocks = transformer.transformer_blocks
        blocks[1].norm1.emb.load_state_dict(blocks[0].norm1.emb.state_dict())
        fields: dict[str, Any] = {
            "space": "pixels in [-1, 1]",
            "resolution": image_size,
            "prediction": "epsilon",
            "learned_variance": learned_variance,
            "schedule": NoiseScheduleMetadata(),
            "freq_shift": 0,
            "norm_eps": 1e-6,
            "guided_channels": "all",
            "clip_denoised": True,
            "latent_scale": 1.0,
            "class_ids": class_ids,
            "null_label": len(class_ids),
        }
        folder = tmp_path / name
        DenoisingNetwork(transformer, 0).save(folder, PriorMetadata(**(fields | metadata)))
        return folder

    return make
