"""Templates to pages. Names, notes and paths come from results of unknown origin: all text is escaped."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

STATIC = Path(__file__).parent / "static"
NONE = "–"


@dataclass(frozen=True)
class Page:
    """One page of the site.

    Args:
        path: relative to the site's root, `tables/x.html`.
        template: a file of `templates/`, which extends `base.html`.
        section: the navigation's entry that it belongs to.
        values: what the template shows.
    """

    path: str
    template: str
    title: str
    section: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Link:
    """An entry of the navigation."""

    section: str
    path: str


@cache
def environment() -> Environment:
    made = Environment(
        loader=PackageLoader("ddbench.reports.site"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["number"] = number
    made.filters["seconds"] = seconds
    made.filters["signed"] = lambda value, digits=2: NONE if value is None else f"{value:+.{digits}f}"
    made.filters["p"] = p_value
    return made


def render(page: Page, navigation: list[Link], made: str) -> str:
    """The page as HTML.

    Args:
        made: what made the site, for its foot.
    """
    root = "../" * page.path.count("/")
    template = environment().get_template(page.template)
    return template.render(page=page, root=root, navigation=navigation, made=made, **page.values)


def number(value: float | None, digits: int = 2) -> str:
    return NONE if value is None else f"{value:,.{digits}f}"


def seconds(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def p_value(value: float | None) -> str:
    return NONE if value is None else "< 0.0001" if value < 1e-4 else f"{value:.4f}" if value < 0.1 else f"{value:.2f}"
