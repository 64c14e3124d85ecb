"""What can be set of RDED. Defaults are the program's."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ddbench.methods.classifier import Network
from ddbench.methods.observer_params import ObserverParams


class RDEDParams(ObserverParams):
    pool: Annotated[
        int, Field(ge=1, description="Random images of a class that are looked at; all, where it has fewer.")
    ] = 300
    crops: Annotated[int, Field(ge=1, description="Random crops of each of those images; the best one counts.")] = 5
    min_scale: Annotated[
        float, Field(gt=0, le=1, description="Least area of a crop, as a fraction of the image; the most is 1.")
    ] = 0.08
    factor: Annotated[
        int,
        Field(ge=1, description="Crops along each side of a collage; 1, single crops, for images of 64 px or less."),
    ] = 2
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
        Network,
        Field(description="Network of the observer, at the run's side."),
    ] = "resnet18_bn"
