"""The diffusion prior of a run on one dataset: which it is, whether it fits, and what each contestant gets of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from ddbench.benchmark.core.errors import Collector, UsageError
from ddbench.benchmark.core.registry import DATASETS, whole_of
from ddbench.benchmark.core.spec import DatasetSpec
from ddbench.benchmark.planning.contestants import Contestant, load_method
from ddbench.benchmark.planning.prior_names import NamedPrior, name_prior
from ddbench.benchmark.planning.run_spec import RunSpec
from ddbench.benchmark.planning.setting import Setting
from ddbench.datasets.base import Dataset
from ddbench.datasets.validation import is_tuning
from ddbench.methods.diffusion.priors.files import PriorFiles, bundled_priors
from ddbench.methods.diffusion.priors.metadata import PriorMetadata

PRIOR_VARIABLE = "DDBENCH_PRIOR"


def prior_name(run: RunSpec, dataset: type[Dataset]) -> tuple[str | None, str | None]:
    """The prior that a run uses on a dataset, and what people are to be told of it.

    `--prior`, else `$DDBENCH_PRIOR`, else the dataset's own. A dataset whose own prior is bundled keeps it, as it keeps
    its own images under `$DDBENCH_DATA`.
    """
    default = os.environ.get(PRIOR_VARIABLE)
    if run.prior is not None:
        return run.prior, None
    if default and dataset.prior not in bundled_priors():
        return default, f"prior {default} (${PRIOR_VARIABLE})"
    return dataset.prior, None


def pixel_prior_size(
    run: RunSpec, dataset: type[Dataset], name: str | None, selectors: Iterable[tuple[str, bool]]
) -> int | None:
    """Size in pixels of the pixel prior that a chosen method needs, in a run that names no resolution; else None.

    What is wrong with a selector or a prior is told by whoever uses it.
    """
    if run.resolution is not None or name is None:
        return None
    for selector, _ in selectors:
        with contextlib.suppress(UsageError):
            if load_method(selector).needs_prior:
                metadata = name_prior(name, dataset).files.metadata
                return metadata.resolution if metadata.of_pixels else None
    return None


class RunPrior:
    """The prior of a run on one dataset, found when a contestant first needs it; its problem is told once."""

    def __init__(self, name: str | None, setting: Setting, run: RunSpec, used_keys: set[str]) -> None:
        self.name, self.setting, self.run, self.used_keys = name, setting, run, used_keys
        self._found: NamedPrior | None = None
        self._problem: str | None = None
        self.note: str | None = None
        """What people are to be told of it; None where nothing is."""

    @property
    def image_size(self) -> int | None:
        """Size of its images in pixels; None where no contestant has needed it."""
        return None if self._found is None else self._found.files.metadata.resolution

    def of(self, contestant: Contestant) -> NamedPrior | None:
        """The prior that a contestant gets: the run's, tuned where its entry says so; None where it needs none.

        Raises:
            UsageError: none named, not found, damaged, or not fit for this dataset or this method.
        """
        if not contestant.method.needs_prior:
            return None
        tuner = contestant.prior_tuned_by
        if tuner is None:
            named = self._named()
            if (reason := contestant.instance().supports_prior(named.files.metadata)) is not None:
                raise UsageError(f"{contestant.label} with prior {named.name}: {reason}")
            return named
        tuned = self._named().tuned_by(tuner, self.setting.dataset, self.run.set)
        self.used_keys.update(self.run.set.keys() & tuned.tunings[-1].params.keys())
        return tuned

    def _named(self) -> NamedPrior:
        dataset = self.setting.dataset
        if self.name is None:
            raise UsageError(
                f"{dataset.name} has no prior of its own; name one with --prior NAME|FOLDER or ${PRIOR_VARIABLE}"
            )
        if self._problem is not None:
            raise UsageError(self._problem)
        if self._found is None:
            try:
                found = name_prior(self.name, dataset)
                check_prior(found.files, dataset(), self.setting.spec, self.run.data)
            except UsageError as error:
                self._problem = str(error)
                raise
            if (
                is_tuning(dataset.name)
                and _saw_tested_images(found.files.metadata, dataset(), self.setting.spec, self.run.data) is None
            ):
                self.note = (
                    f"prior {found.name} may have seen the validation images of {whole_of(dataset.name)} (trained on "
                    f"{found.trained_on}): what is chosen by them is chosen on images that it knows"
                )
            self._found = found
        return self._found


def check_prior(prior: PriorFiles, dataset: Dataset, spec: DatasetSpec, data: Path | None) -> None:
    """Check that a prior fits a dataset's classes and size, and never saw its test images.

    Raises:
        Problems: all that does not fit.
    """
    metadata, problems = prior.metadata, Collector()
    unknown = [class_id for class_id in dataset.class_ids if class_id not in metadata.class_ids]
    if unknown:
        problems.add(
            f"prior {prior.name} does not know {len(unknown)} of {dataset.name}'s {len(dataset.class_ids)} classes "
            f"(the first is {unknown[0]}); choose one trained on them"
        )
    if metadata.of_pixels and metadata.resolution != spec.resolution:
        problems.add(
            f"prior {prior.name} makes images of {metadata.resolution} px, the run asks for {spec.resolution} px; "
            f"choose another prior or --resolution {metadata.resolution}"
        )
    if _saw_tested_images(metadata, dataset, spec, data):
        problems.add(trained_on_tested(prior.name, spec))
    problems.raise_any()


def names_of(dataset: str) -> str:
    """The datasets in which the name of one of its images is that image: all of ILSVRC's together, else it alone."""
    whole: type[Dataset] = DATASETS.load(str(whole_of(dataset)))
    return whole.name if whole.test_names is Dataset.test_names else "ILSVRC"


def trained_on_tested(prior: str, spec: DatasetSpec, said: str = "") -> str:
    """What is to be said of a prior that students would be tested against.

    Args:
        said: which of the images, where they were counted.
    """
    what = "validation" if is_tuning(spec.name) else "test"
    return (
        f"prior {prior} was trained on {what} images of {whole_of(spec.name)}, split {spec.split}{said}: "
        "its results would mean nothing; choose a prior that saw the training part only, or train one "
        f"(`bench train-prior --dataset {whole_of(spec.name)} --split {spec.split}`)"
    )


def _saw_tested_images(metadata: PriorMetadata, dataset: Dataset, spec: DatasetSpec, data: Path | None) -> bool | None:
    """Whether a prior was trained on the images that students are tested on, by the splits that its metadata names;
    None where it does not say. Cells compare image by image, where it says which it was trained on."""
    split_hash = dataset.split_hash(spec.split, data)
    if (saw := metadata.saw_test_images(split_hash)) is not None or not is_tuning(spec.name):
        return saw
    whole = DATASETS.load(str(whole_of(spec.name)))().split_hash(spec.split, data)
    withheld = metadata.training.get("withhold_validation")
    return not withheld if whole in metadata.train_split_hashes and isinstance(withheld, bool) else None
