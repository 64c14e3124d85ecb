"""What a cell's memory and its work beside sampling come to as classes grow, measured on noise: a script, no test.

python -P tests/speed/class_scaling.py FOLDER [--classes 10,100,1000] [--ipc 50] [--methods random,dmgd]

Cells run one by one through `bench run`, as a user's do; the numbers are those of their `result.json`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import torch
from diffusers import DiTTransformer2DModel

from ddbench.benchmark.core.registry import DATASETS, load_plugin
from ddbench.benchmark.core.store import Store
from ddbench.methods.diffusion.network import DenoisingNetwork
from ddbench.methods.diffusion.priors.metadata import NoiseScheduleMetadata, PriorMetadata

PLUGIN = Path(__file__).with_name("many_classes.py")
BENCH = Path(sys.executable).with_name("bench")


def make_prior(folder: Path, class_ids: tuple[str, ...], image_size: int) -> None:
    """The smallest network of the prior's kind, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=16, in_channels=3, out_channels=3, num_layers=1,
            sample_size=image_size, patch_size=4, num_embeds_ada_norm=len(class_ids), norm_eps=1e-6,
        )  # fmt: skip
    metadata = PriorMetadata(
        space="pixels in [-1, 1]", resolution=image_size, prediction="epsilon", learned_variance=False,
        schedule=NoiseScheduleMetadata(), freq_shift=0, norm_eps=1e-6, guided_channels="all", clip_denoised=True,
        latent_scale=1.0, class_ids=class_ids, null_label=len(class_ids),
    )  # fmt: skip
    DenoisingNetwork(transformer, 0).save(folder, metadata)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--classes", default="10,100,1000")
    parser.add_argument("--ipc", default="50")
    parser.add_argument("--methods", default="random,dmgd[steps=5]")
    parser.add_argument("--shards", default="1")
    asked = parser.parse_args()
    load_plugin(PLUGIN)
    for classes in asked.classes.split(","):
        dataset = DATASETS.load(f"noise-{classes}")()
        if not (asked.folder / "data" / dataset.name).exists():
            dataset.write(asked.folder / "data")
        prior = asked.folder / f"prior-{classes}"
        if not prior.exists():
            make_prior(prior, dataset.class_ids, dataset.resolution)
        out = asked.folder / f"runs-{classes}-shards-{asked.shards}"
        command = [
            BENCH, "run", "--plugin", PLUGIN, "--method", asked.methods, "--dataset", dataset.name, "--data",
            asked.folder / "data", "--prior", prior, "--ipc", asked.ipc, "--seeds", "0", "--repeats", "1",
            "--protocol", "quick[epochs=1]", "--device", "cpu", "--shards", asked.shards, "--out", out,
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for cell in Store(out).cell_dirs():
            result = cell.result()
            assert result is not None
            assert result.cost is not None
            spent = ", ".join(f"{p.name} {p.seconds:.2f}" for p in result.cost.phases if p.seconds >= 0.01)
            size = (cell.path / "result.json").stat().st_size
            print(
                f"{dataset.name} {result.kind} {result.label}: peak {result.cost.host_peak_mib} MiB; {spent} s; "
                f"result.json {size} bytes",
                flush=True,
            )


if __name__ == "__main__":
    main()
