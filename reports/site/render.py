"""Templates to pages. Names, notes and paths come from results of unknown origin: all text is escaped."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ddbench.reports.output import columns, cost_text, number_text
from ddbench.reports.results.paths import without_paths
from ddbench.reports.site.pictures.bars import bar_scale, interval_bar

STATIC = Path(__file__).parent / "static"


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


@cache
def environment(public: bool) -> Environment:
    """The templates.

    Args:
        public: no path is in any text that they are filled with.
    """
    made = Environment(
        loader=PackageLoader("ddbench.reports.site"),
        autoescape=True,
        auto_reload=False,
        finalize=_for_everybody if public else None,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": number_text.number,
        "signed": number_text.signed,
        "seconds": number_text.seconds,
        "p": number_text.p_value,
        "accuracy_interval": columns.accuracy_text,
        "rank": columns.rank,
        "gap": columns.gap,
        "cost_standing": cost_text.standing,
        "marked": cost_text.marked,
        "first_better": cost_text.first_better,
        "images": columns.images,
        "label_bytes": columns.label_bytes,
        "interval": lambda of: number_text.interval(of.low, of.high),
        "signed_interval": lambda of: number_text.signed_interval(of.low, of.high),
        "bar": interval_bar,
        "bar_scale": bar_scale,
        "key": lambda value: "" if value is None else value,
    }
    return made


def _for_everybody(value: Any) -> Any:
    """Markup is left as it is: charts and data are made of names that went through `Site.shown`."""
    return without_paths(value) if type(value) is str else value


def render(page: Page, navigation: list[tuple[str, str]], made: str, *, public: bool = False) -> str:
    """The page as HTML.

    Args:
        navigation: (section, path) of its entries.
        made: what made the site, for its foot.
        public: without paths.
    """
    root = "../" * page.path.count("/")
    template = environment(public).get_template(page.template)
    return template.render(page=page, root=root, navigation=navigation, made=made, **page.values)
