"""Contact sheets: every image at its place, and the whole on one screen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddbench.reports.site.build import build_site
from ddbench.reports.site.pictures.sheets import Sheet


def test_a_sheet_fits_a_screen_and_no_tile_lies_on_another() -> None:
    for classes in (1, 2, 7, 10, 16, 20):
        for images in range(1, 11):
            for image_size in (8, 28, 32, 64):
                sheet = Sheet("", image_size, classes, images)
                # The page shrinks what is a little too wide: 20 classes of 10 images.
                assert sheet.width * sheet.zoom <= 1300, sheet
                assert sheet.height * sheet.zoom <= 700, sheet
                assert 32 < image_size * sheet.zoom <= 64
                taken = np.zeros((sheet.height, sheet.width), int)
                for index in np.ndindex(classes, images):
                    left, top = sheet.place(*index)
                    taken[top : top + image_size, left : left + image_size] += 1
                assert taken.max() == 1
                assert taken.sum() == classes * images * image_size**2


@pytest.mark.parametrize(("images", "rows", "across"), [(1, 1, 10), (2, 2, 5), (10, 10, 1)])
def test_ten_classes_stand_across_where_they_have_few_images(images: int, rows: int, across: int) -> None:
    sheet = Sheet("", 8, 10, images)
    assert (sheet.rows, sheet.across) == (rows, across)


def test_a_page_shows_its_set_and_a_second_build_the_same(folder: Any, tmp_path: Path) -> None:
    folder.method("mine", [[80]])
    folder.pictures()
    for _ in range(2):
        build_site(folder.out, tmp_path / "site")
        (file,) = (tmp_path / "site" / "images").iterdir()
        (page,) = (page for page in (tmp_path / "site" / "runs").glob("*.html") if 'class="sheet' in page.read_text())
        width, height = re.findall(r'width="(\d+)" height="(\d+)" alt', page.read_text())[0]
        assert (int(width), int(height)) == (8 * (5 * (2 * 8 + 1) - 1), 8 * 2 * 8), (
            "five classes of two images in a row"
        )
        pixels = np.asarray(Image.open(file).convert("RGBA"))
        for c, i in np.ndindex(10, 2):
            row, column = divmod(c, 5)
            tile = pixels[8 * row : 8 * row + 8, 17 * column + 8 * i :][:, :8]
            assert tile[0, 0].tolist() == [20 * c + i] * 3 + [255]
        assert pixels[0, 16, 3] == 0, "the page shows between classes"


def test_a_sheet_of_another_size_than_its_name_states_is_made_again(folder: Any, tmp_path: Path) -> None:
    folder.method("mine", [[80]])
    folder.pictures()
    build_site(folder.out, tmp_path / "site")
    (file,) = (tmp_path / "site" / "images").iterdir()
    whole = file.read_bytes()
    Image.new("RGB", (80, 17)).save(file)
    build_site(folder.out, tmp_path / "site")
    assert file.read_bytes() == whole


@pytest.mark.parametrize("public", [False, True])
def test_a_leaderboard_shows_images_of_what_may_be_shown(folder: Any, tmp_path: Path, public: bool) -> None:
    folder.method("random", [[80], [81]])
    folder.method("dit", [[80], [81]], prior="ab" * 32)
    folder.pictures()
    to = tmp_path / "site"
    build_site(folder.out, to, public=public)
    (page,) = (to / "tables").glob("*.html")
    board = page.read_text().partition("</table>")[0]
    rows = {name: row for row in board.split("<tr")[2:] for name in ("random", "dit") if f">{name}<" in row}
    assert {name: row.count("images/") for name, row in rows.items()} == {"random": 0 if public else 10, "dit": 10}
    if public:
        assert len(list((to / "images").iterdir())) == 2


def test_thumbnails_are_whole_multiples_or_shrunk() -> None:
    small, large = Sheet("", 8, 10, 2).thumbnails(10, 32), Sheet("", 64, 20, 2).thumbnails(10, 32)
    assert len(small) == len(large) == 10
    assert small[7].startswith("width:32px;height:32px;background-size:336px 64px;"), "5 classes of 2 in a row of 84 px"
    assert small[7].endswith("background-position:-136px -32px"), "the third of the second row"
    assert large[1].startswith("width:32px;")
