"""What the pages share: how their templates are filled, and how texts from outside become fit to be shown.

A page is one file: no script, pictures as data: URLs, and its own security policy forbids it to load anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

HEAD = Markup(
    '<meta charset="utf-8">\n'
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
    "style-src 'unsafe-inline'\">\n"
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    '<meta name="generator" content="Lorgnette">'
)
"""Begins the head of every page: `{{ head }}`."""

COLOURS: Mapping[str, str] = {
    "ink": "#1d2430",
    "quiet": "#5b6472",
    "line": "#dfe3e8",
    "paper": "#ffffff",
    "tint": "#f5f7f9",
    "before": "#9cc9e3",
    "after": "#0072b2",
    "warm": "#a84300",
}
"""What every page and drawing is coloured with. Blue and orange are of Okabe & Ito's palette: told apart by
colour-blind readers, and by lightness in grey print."""
PALETTE = Markup(f":root {{ {' '.join(f'--{name}: {colour};' for name, colour in COLOURS.items())} }}")
"""Begins the style of every page: `{{ palette }}`; rules then say `var(--ink)`."""


def render_page(package: str, template: str, filters: Mapping[str, Callable[..., Any]], **values: Any) -> str:
    """Fill the template of a page that lies beside a module; whatever is put in is escaped.

    Args:
        package: the module's `__package__`.
        template: the file's name.
        filters: what the template writes numbers and names by.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= filters
    text = resources.files(package).joinpath(template).read_text(encoding="utf-8")
    return environment.from_string(text).render(head=HEAD, palette=PALETTE, **values)


def cut(text: str, longest: int) -> str:
    """Cut a text that would fill the page, and say how much is missing."""
    more = len(text) - longest
    return text if more <= 0 else f"{text[:longest]}… ({more:,} more characters)"


def printable(text: str, keep: str = "") -> str:
    """Replace control characters, which could drive a terminal or break a drawing, but for those to keep."""
    return "".join(letter if letter.isprintable() or letter in keep else "\N{REPLACEMENT CHARACTER}" for letter in text)


def printable_lines(text: str) -> str:
    """Replace control characters; line breaks and tabs stay."""
    return printable(text, keep="\n\t")
