"""Draw captioned pictures of coloured shapes, from nothing but a random generator.

Knows drawing and captions; knows nothing about models. The pictures are what the starter vision tower sees
before anybody's data: one to three shapes on a light ground, with jitter in every property.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

PICTURE_SIDE = 64
Point = tuple[float, float]
Rgb = tuple[float, float, float]

# Each name covers the colours between its two anchors, plus jitter.
COLORS: dict[str, tuple[Rgb, Rgb]] = {
    "black": ((0, 0, 0), (30, 30, 30)),
    "gray": ((110, 110, 110), (150, 150, 150)),
    "red": ((255, 0, 0), (215, 20, 30)),
    "green": ((0, 255, 0), (20, 150, 40)),
    "blue": ((0, 0, 255), (40, 80, 240)),
    "yellow": ((255, 255, 0), (245, 225, 40)),
    "teal": ((0, 128, 128), (10, 145, 140)),
    "brown": ((165, 42, 42), (130, 75, 35)),
    "orange": ((255, 165, 0), (255, 130, 20)),
    "purple": ((128, 0, 128), (110, 40, 170)),
    "pink": ((255, 150, 190), (255, 105, 180)),
    "cyan": ((0, 255, 255), (60, 220, 240)),
    "navy": ((0, 0, 100), (20, 20, 128)),
    "olive": ((128, 128, 0), (110, 120, 30)),
    "magenta": ((255, 0, 255), (230, 20, 220)),
}
COLOR_NAMES = tuple(COLORS)


def _round(radius_x: float, radius_y: float, start: float = 0.0, stop: float = 2 * math.pi) -> list[Point]:
    angles = np.linspace(start, stop, 33)
    return [(radius_x * math.cos(a), radius_y * math.sin(a)) for a in angles]


def _regular(corners: int) -> list[Point]:
    angles = [2 * math.pi * k / corners - math.pi / 2 for k in range(corners)]
    return [(math.cos(a), math.sin(a)) for a in angles]


def _star(inner: float) -> list[Point]:
    corners = zip(_regular(10), [1.0, inner] * 5, strict=True)
    return [(x * radius, y * radius) for (x, y), radius in corners]


def _box(half_width: float, half_height: float) -> list[Point]:
    w, h = half_width, half_height
    return [(-w, -h), (w, -h), (w, h), (-w, h)]


def _cross(arm: float) -> list[Point]:
    quarter = [(-arm, -1.0), (arm, -1.0), (arm, -arm)]
    return [corner for turns in range(4) for corner in (_quarter_turned(p, turns) for p in quarter)]


def _quarter_turned(point: Point, turns: int) -> Point:
    x, y = point
    return [(x, y), (-y, x), (-x, -y), (y, -x)][turns]


def _triangle(rng: np.random.Generator) -> list[Point]:
    half_width, tip = rng.uniform(0.75, 1.0), rng.uniform(-0.15, 0.15)
    return [(tip, -0.85), (half_width, 0.75), (-half_width, 0.75)]


def _outline(shape: str, rng: np.random.Generator) -> list[Point]:
    """Return the shape's outline as a polygon within the unit circle or so."""
    ratio = rng.uniform(0.4, 0.75)
    upright = rng.random() < 0.5
    outlines = {
        "circle": lambda: _round(0.9, 0.9),
        "ring": lambda: _round(1.0, 1.0),
        "ellipse": lambda: _round(ratio, 1.0) if upright else _round(1.0, ratio),
        "square": lambda: _box(0.8, 0.8),
        "rectangle": lambda: _box(ratio, 0.95) if upright else _box(0.95, ratio),
        "triangle": lambda: _triangle(rng),
        "star": lambda: _star(rng.uniform(0.35, 0.5)),
        "cross": lambda: _cross(rng.uniform(0.2, 0.4)),
        "diamond": lambda: [(0, -1), (0.6, 0), (0, 1), (-0.6, 0)],
        "hexagon": lambda: _regular(6),
        "semicircle": lambda: [(x, y + 0.4) for x, y in _round(1.0, 1.0, math.pi, 2 * math.pi)],
    }
    return outlines[shape]()


SHAPES = (
    "circle", "ring", "ellipse", "square", "rectangle", "triangle", "star", "cross", "diamond", "hexagon",
    "semicircle",
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """One drawn shape: what it is called, where its centre lies and its radius (pixels)."""

    shape: str
    color: str
    x: float
    y: float
    radius: float

    @property
    def size(self) -> str:
        """Name the size the way a caption would."""
        return "small" if self.radius < 6.5 else "large" if self.radius > 10 else "medium"

    @property
    def place(self) -> str:
        """Name the ninth of the picture that holds the centre."""
        row = ("top", "middle", "bottom")[min(int(self.y * 3 / PICTURE_SIDE), 2)]
        column = ("left", "center", "right")[min(int(self.x * 3 / PICTURE_SIDE), 2)]
        return f"{row} {column}"


def draw_picture(rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Draw one picture and write its caption.

    Returns:
        The picture as (64, 64, 3) uint8, and a caption such as "a small red circle left of a blue star".
    """
    figures = _place_figures(rng)
    scale = int(rng.choice([1, 1, 4]))  # hard edges, or smooth ones
    ground = rng.integers(200, 256, 3) if rng.random() < 0.9 else np.repeat(rng.integers(170, 256), 3)
    image = Image.new("RGB", (PICTURE_SIDE * scale,) * 2, tuple(int(v) for v in ground))
    for figure in figures:
        _draw_figure(ImageDraw.Draw(image), figure, ground, scale, rng)
    pixels = np.asarray(image.resize((PICTURE_SIDE,) * 2, Image.Resampling.BOX) if scale > 1 else image)
    if rng.random() < 0.2:
        pixels = np.clip(pixels + rng.normal(0, rng.uniform(0, 8), pixels.shape), 0, 255).astype(np.uint8)
    return pixels, _caption(figures, rng)


def _place_figures(rng: np.random.Generator) -> list[Figure]:
    """Choose one to three figures that do not overlap; a crowded draw just yields fewer."""
    figures: list[Figure] = []
    for _ in range(int(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1]))):
        radius = rng.uniform(3.5, 15 if not figures else 10)
        x, y = rng.uniform(radius * 0.8, PICTURE_SIDE - radius * 0.8, 2)
        if all(math.hypot(x - f.x, y - f.y) > radius + f.radius for f in figures):
            figures.append(Figure(str(rng.choice(SHAPES)), str(rng.choice(COLOR_NAMES)), x, y, radius))
    return figures


def _draw_figure(
    draw: ImageDraw.ImageDraw, figure: Figure, ground: np.ndarray, scale: int, rng: np.random.Generator
) -> None:
    first, second = (np.array(c, float) for c in COLORS[figure.color])
    tone = first + (second - first) * rng.choice([0.0, rng.random()]) + rng.normal(0, 5, 3)
    fill = tuple(int(v) for v in np.clip(tone, 0, 255))
    angle = rng.choice([0.0, rng.uniform(-0.3, 0.3), rng.uniform(-math.pi, math.pi)], p=[0.65, 0.25, 0.1])
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    centre = np.array([figure.x, figure.y])

    def corners(outline: list[Point], factor: float) -> list[Point]:
        return [(x, y) for x, y in ((np.array(outline) @ turn.T) * figure.radius * factor + centre) * scale]

    draw.polygon(corners(_outline(figure.shape, rng), 1.0), fill=fill)
    if figure.shape == "ring":
        draw.polygon(corners(_round(1.0, 1.0), rng.uniform(0.5, 0.7)), fill=tuple(int(v) for v in ground))


def _caption(figures: list[Figure], rng: np.random.Generator) -> str:
    """Write a caption that names some properties of every figure, and how the first two relate."""
    parts = [_noun_phrase(f, rng) for f in figures]
    if len(figures) == 1:
        place = f" at the {figures[0].place}" if rng.random() < 0.3 else ""
        return parts[0] + place
    first, second = figures[:2]
    if abs(first.x - second.x) > abs(first.y - second.y):
        relation = "left of" if first.x < second.x else "right of"
    else:
        relation = "above" if first.y < second.y else "below"
    return " and ".join([f"{parts[0]} {relation} {parts[1]}", *parts[2:]])


def _noun_phrase(figure: Figure, rng: np.random.Generator) -> str:
    size = f"{figure.size} " if rng.random() < 0.3 else ""
    return f"a {size}{figure.color} {figure.shape}"
