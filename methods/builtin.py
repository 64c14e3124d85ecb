"""The built-in methods and their variants, as data: nothing is imported until one is used."""

from __future__ import annotations

from typing import Any

from ddbench.benchmark.registry import Entry


def _variant(name: str, summary: str, tag: str = "ablation", **overrides: Any) -> Entry:
    return Entry(name, summary=summary, tags=(tag, "training-free"), variant_of="dmgd", overrides=overrides)


PLAIN: dict[str, Any] = {"semantic_matching": False, "distribution_matching": False}

ENTRIES: list[Entry] = [
    Entry("random", "ddbench.methods.selection:RandomSelection", "random real images", ("main", "selection")),
    Entry(
        "random-first",
        "ddbench.methods.selection:FirstImages",
        "the first real images by sorted file name (what papers' loaders call random)",
        ("reference", "selection"),
    ),
    Entry(
        "full",
        "ddbench.methods.selection:FullDataset",
        "the whole training set, whatever the IPC: the upper reference",
        ("main", "reference", "selection"),
    ),
    Entry(
        "dmgd",
        "ddbench.methods.dmgd.method:DMGD",
        "diffusion prior guided by semantic and distribution matching (CVPR 2026)",
        ("main", "training-free"),
    ),
    _variant("dit", "the plain prior with classifier-free guidance", "main", **PLAIN),
    _variant("dit-cfg1", "the plain prior without any guidance", **PLAIN, cfg_scale=1.0),
    _variant("dmgd-sm", "semantic matching only (Table 3)", distribution_matching=False),
    _variant("dmgd-dm", "distribution matching only, hard label (Tables 3, 5)", semantic_matching=False),
    _variant("dmgd-soft-only", "dynamic label without noise (Table 5)", label_noise_weight=0.0),
    _variant("dmgd-noise-only", "dynamic label without another class (Table 5)", label_mix_weight=0.0),
    _variant("dmgd-mean", "the class mean as support (Table 6)", support="mean"),
    _variant("dmgd-density", "a density sample of the class as support (Table 6)", support="density"),
    _variant("dmgd-no-exploration", "the class's own label above t = 900 (Table 7)", exploration=False),
    _variant("dmgd-no-refinement", "dynamic label down to t = 0 (Table 7)", label_t_lower=0),
    _variant("dmgd-dm-always", "distribution matching at all 50 steps (Table 7)", ot_window_first=0, ot_window_last=49),
    _variant("dmgd-joint", "all images of a class optimised jointly", greedy=False),
    _variant(
        "dmgd-paper",
        "an interpretation of the paper's formulas where the released program differs; not the published runs",
        label_weights="linear",
        ot_gradient="envelope",
        ot_sigma=False,
    ),
]
