"""Whether students whose network is compiled are as good as others: two one-sided tests within ± 0.5 points.

    nice -n 19 python -P tests/speed/compile_equivalence.py digits.jsonl --dataset digits --protocol quick --students 20

trains students of one set of random images in both ways, in turns. Each goes into the file as it ends, and the same
command goes on from there. Students of one seed begin with equal weights and see equal images: they are pairs.
Compiling is paid once, since PyTorch's cache keeps it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.registry import DATASETS, PROTOCOLS
from ddbench.benchmark.core.spec import Compile
from ddbench.benchmark.protocols.base import Protocol
from ddbench.benchmark.protocols.images import fit
from ddbench.benchmark.protocols.trainer import train_student
from ddbench.reports.statistics.crossed import SetScore, comparison_of, difference_of, summary
from ddbench.reports.statistics.equivalence import equivalence_p_value

MARGIN = 0.5
"""Points within which the two are called equivalent."""
ARMS: tuple[Compile, ...] = ("always", "never")
"""What `compile` says of them."""


class Trained:
    """The students of one random set; on a CPU, each on one thread."""

    def __init__(self, asked: argparse.Namespace) -> None:
        torch.set_num_threads(1)
        self.asked = asked
        dataset = DATASETS.load(asked.dataset)()
        self.split = dataset.load(asked.split or dataset.splits[0], asked.data, asked.resolution or dataset.resolution)
        self.num_classes = len(dataset.class_ids)
        published: Protocol = PROTOCOLS.load(asked.protocol)
        self.protocol = published.with_overrides({"looks": 1, **dict(pair.split("=") for pair in asked.overrides)})
        resolution = asked.resolution or dataset.resolution
        drawn = seeds.stream(0, "random images")
        of_class = [np.flatnonzero(self.split.train.labels == label) for label in range(self.num_classes)]
        rows = np.concatenate(
            [indices[torch.randperm(len(indices), generator=drawn).numpy()[: asked.ipc]] for indices in of_class]
        )
        self.images = fit(self.protocol, self.split.train.read(rows), resolution)
        self.labels = self.split.train.labels[rows]
        self.test = fit(self.protocol, self.split.test.read(np.arange(len(self.split.test))), resolution, test=True)

    def student(self, arm: Compile, seed: int) -> dict[str, object]:
        began = time.process_time()
        made = train_student(
            self.protocol, self.asked.student or self.protocol.default_student, self.images, self.labels, self.test,
            self.split.test.labels, num_classes=self.num_classes, ipc=self.asked.ipc, seed=seed,
            device=self.asked.device, compile=arm,
        )  # fmt: skip
        if bool((made.determinism or {}).get("compiled")) != (arm == "always"):
            raise SystemExit(f"expected a student with compile={arm}, got {made.determinism}")
        right = made.predictions == self.split.test.labels
        return {
            "arm": arm, "seed": seed, "acc_last": made.acc_last, "cpu_seconds": round(time.process_time() - began, 2),
            "right": np.packbits(right).tobytes().hex(),
        }  # fmt: skip


def report(students: list[dict[str, object]], n_test: int) -> str:
    """What the students trained so far say."""
    arms, lines = [], []
    for arm in ARMS:
        scores = [
            SetScore(
                (float(str(each["acc_last"])),),
                int(str(each["seed"])),
                np.unpackbits(np.frombuffer(bytes.fromhex(str(each["right"])), np.uint8))[:n_test].astype(float),
            )
            for each in students
            if each["arm"] == arm
        ]
        of_arm = summary([score.students for score in scores])
        lines.append(f"compile={arm}: n = {of_arm.n}, {of_arm.mean:.2f} %, standard deviation {of_arm.std or 0:.2f}")
        arms.append(scores)
    found = difference_of(arms[0], arms[1], n_test)
    compared, p = comparison_of(found), equivalence_p_value(found, MARGIN)
    if p is None or compared.low is None or compared.high is None:
        return "\n".join([*lines, compared.basis])
    verdict = "equivalent" if p < 0.05 else "not shown to be equivalent"
    return "\n".join(
        [
            *lines,
            f"difference {compared.difference:+.2f} points, 95 % interval {compared.low:+.2f} … {compared.high:+.2f} "
            f"({compared.basis}); within ± {MARGIN}: p = {p:.2g}, {verdict}",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="students, one JSON object a line")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--split")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--resolution", type=int)
    parser.add_argument("--protocol", default="quick")
    parser.add_argument("--overrides", nargs="*", default=[], metavar="KEY=VALUE", help="of the protocol")
    parser.add_argument("--student")
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--students", type=int, default=20, help="of each kind")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    trained = Trained(asked)
    found = [json.loads(line) for line in asked.file.read_text().splitlines()] if asked.file.exists() else []
    for seed in range(asked.students):
        for arm in ARMS:
            if not any(each["arm"] == arm and each["seed"] == seed for each in found):
                found.append(trained.student(arm, seed))
                with asked.file.open("a") as file:
                    file.write(json.dumps(found[-1]) + "\n")
    print(report(found, len(trained.test)))


if __name__ == "__main__":
    main()
