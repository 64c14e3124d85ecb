"""How a folder of images made elsewhere is read, where it is not simply what it looks like."""

from __future__ import annotations

from pydantic import Field

from ddbench.benchmark.core.spec import Model


class Reading(Model):
    """What a user said of a folder's files. The hash of the images is over what comes of it."""

    class_folders: dict[str, str] = Field(default={}, exclude_if=lambda value: not value)
    """Class id -> its folder, of the classes whose folders are not named by their ids."""
    flatten: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """What lies behind transparent pixels: `white`, `black` or `R,G,B`; None: such images are refused."""

    def folder_of(self, class_id: str) -> str:
        return self.class_folders.get(class_id, class_id)


AS_IT_IS = Reading()
"""Folders named by class ids, and opaque images."""
