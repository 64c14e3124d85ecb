"""An author's program, as `external` runs one: random selection that copies files. Python's standard library alone.

python example.py --train TRAIN --out OUT --ipc N --seed S: TRAIN/<class>/<image> to OUT/<class>/<image>.
"""

import argparse
import random
import shutil
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ipc", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    given = parser.parse_args()
    for folder in sorted(given.train.iterdir()):
        target = given.out / folder.name
        target.mkdir(parents=True)
        draw = random.Random(f"{given.seed}/{folder.name}")
        for index, image in enumerate(draw.sample(sorted(folder.iterdir()), given.ipc)):
            shutil.copy(image, target / f"{index:05d}{image.suffix}")
        print(f"{folder.name}: {given.ipc} images", flush=True)


if __name__ == "__main__":
    main()
