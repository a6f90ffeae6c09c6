"""Turn a drawing into SVG that stands inside a page, and into SVG and PNG files.

The only module that makes matplotlib figures. It uses `Figure` without pyplot, so there is no window, no backend to
choose and no global state; the same input gives the same bytes. Letters stay text: the page's own font shows every
script, and names are escaped, never parsed as mathematics.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure

from lorgnette.pages import COLOURS, printable
from lorgnette.run import write_bytes

INK, GREY, GRID, BEFORE, AFTER = (COLOURS[name] for name in ("ink", "quiet", "line", "before", "after"))
WARM = "#c2530a"  # lighter than the page's, which has to be read as text
# On the page a colour is a variable, so that a drawing follows it into the dark.
ON_PAGE = {INK: "ink", GREY: "quiet", GRID: "line", BEFORE: "before", AFTER: "after", WARM: "warm"}
# Narrow on purpose: scaled down to a phone, 9 pt letters are still readable.
WIDTH_INCHES = 4.3
PNG_DOTS_PER_INCH = 200
# DejaVu Sans comes with matplotlib and has no Chinese, Japanese or Korean; the first of these that is installed does.
FONTS = ("Noto Sans CJK SC", "Noto Sans SC", "Microsoft YaHei", "PingFang SC", "WenQuanYi Zen Hei")

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
}


@dataclass(frozen=True)
class Drawing:
    """What to draw into an empty figure, how high it is in inches, and what it shows in words."""

    draw: Callable[[Figure], None]
    height: float
    label: str


def inline_svg(drawing: Drawing, place: str) -> str:
    """Return an `<svg>` element: as wide as its place on the page, in the page's colours, without a background.

    Args:
        place: a name that no other drawing of the page has; ids are made from it.
    """
    opening, body = _svg(drawing, place, transparent=True).split(">", 1)
    box = re.findall(r'viewBox="[^"]*"', opening)[0]
    # Several drawings share a page, and an id may occur there once. What is referred to (clip paths, markers)
    # has a salted hash; the groups only have numbers. Text is escaped, so that "<" can only begin a tag.
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub(r"<[^>]*>", lambda tag: _page_colours(tag.group()), body)
    return f'<svg {box} role="img" aria-label="{html.escape(printable(drawing.label))}">{body}'


def write_drawings(folder: Path, drawings: Mapping[str, Drawing]) -> None:
    """Write every drawing as NAME.svg and NAME.png on white, each whole or not at all."""
    for name, drawing in drawings.items():
        write_bytes(folder / f"{name}.svg", ('<?xml version="1.0" encoding="utf-8"?>\n' + _svg(drawing, name)).encode())
        buffer = io.BytesIO()
        with _figure(drawing, name) as figure:
            figure.savefig(buffer, format="png", dpi=PNG_DOTS_PER_INCH, metadata={"Software": None})
        write_bytes(folder / f"{name}.png", buffer.getvalue())


def _svg(drawing: Drawing, salt: str, *, transparent: bool = False) -> str:
    buffer = io.StringIO()
    with _figure(drawing, salt) as figure:
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing, transparent=transparent)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


@contextmanager
def _figure(drawing: Drawing, salt: str) -> Iterator[Figure]:
    """Draw with matplotlib's defaults and ours, whatever the user's matplotlibrc says."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        installed = set(font_manager.get_font_names())
        fonts = ["DejaVu Sans", *(name for name in FONTS if name in installed)]
        matplotlib.rcParams.update(STYLE | {"svg.hashsalt": salt, "font.family": fonts})
        # a letter that no font has is a box in a PNG; on the page its own font draws it
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(WIDTH_INCHES, drawing.height), layout="constrained")
        drawing.draw(figure)
        yield figure


def _page_colours(tag: str) -> str:
    for colour, name in ON_PAGE.items():
        tag = tag.replace(colour, f"var(--{name}, {colour})")
    return tag
