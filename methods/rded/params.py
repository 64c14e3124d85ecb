"""What can be set of RDED. Defaults are the program's."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ddbench.methods.classifier import ObserverNetwork
from ddbench.methods.observer_params import COMES_TRAINED, ObserverParams

LARGEST_SINGLE = 64
"""Side in pixels up to which an image is one crop."""


class RDEDParams(ObserverParams):
    pool: Annotated[
        int, Field(ge=1, description="Random images of a class that are looked at; all, where it has fewer.")
    ] = 300
    crops: Annotated[int, Field(ge=1, description="Random crops of each of those images; the best one counts.")] = 5
    min_scale: Annotated[
        float, Field(gt=0, le=1, description="Least area of a crop, as a fraction of the image; the most is 1.")
    ] = 0.08
    factor: Annotated[
        int | None,
        Field(
            ge=1,
            description="Crops along each side of a collage. Null: the program's for the run's side, 1 (single crops) "
            "up to 64 px and 2 above.",
        ),
    ] = None
    source_scale: Annotated[
        int, Field(ge=1, description="Side of the images that are cropped, as a multiple of the run's.")
    ] = 1
    jpeg: Annotated[
        bool,
        Field(
            description="Store the images with the losses of JPEG at quality 75 (program), which depend on the "
            "version of libjpeg; false: as they are."
        ),
    ] = False
    network: Annotated[
        ObserverNetwork,
        Field(description=f"Network of the observer, at the run's side. {COMES_TRAINED}"),
    ] = "resnet18_bn"

    def factor_at(self, image_size: int) -> int:
        """Crops along each side of a collage of that side in pixels."""
        return self.factor or (1 if image_size <= LARGEST_SINGLE else 2)
