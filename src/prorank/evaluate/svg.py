"""Small pictures as inline SVG: axes, marks, and nothing that needs a network or a script.

Colours are CSS classes (``s0`` ... for series, ``pos``/``neg`` for signs), so that the page's style decides them for
light and dark. Every mark has a ``<title>`` that a browser shows on hovering.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

__all__ = ["Figure", "linear_scale", "log_scale", "number", "ticks"]

Scale = Callable[[float], float]


class Figure:
    """A drawing area with axes around it.

    Args:
        width, height: of the whole picture, in user units (it scales with the page).
        left, right, top, bottom: margins for the axes' words.
    """

    def __init__(
        self,
        width: float,
        height: float,
        *,
        left: float = 56,
        right: float = 16,
        top: float = 12,
        bottom: float = 40,
        label: str = "",
    ) -> None:
        self.width, self.height, self.label = width, height, label
        self.left, self.right, self.top, self.bottom = left, width - right, top, height - bottom
        self._parts: list[str] = []

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str, title: str = "") -> None:
        self._add(f'<line class="{style}" x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}"', title)

    def rect(self, x: float, y: float, width: float, height: float, style: str, title: str = "") -> None:
        box = f'x="{_n(x)}" y="{_n(y)}" width="{_n(max(width, 0))}" height="{_n(max(height, 0))}"'
        self._add(f'<rect class="{style}" {box}', title)

    def circle(self, x: float, y: float, radius: float, style: str, title: str = "") -> None:
        self._add(f'<circle class="{style}" cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}"', title)

    def path(self, points: Sequence[tuple[float, float]], style: str, *, closed: bool = False) -> None:
        if points:
            steps = " L".join(f"{_n(x)} {_n(y)}" for x, y in points)
            self._parts.append(f'<path class="{style}" d="M{steps}{" Z" if closed else ""}"/>')

    def text(self, x: float, y: float, text: str, style: str = "tick", anchor: str = "start") -> None:
        self._parts.append(
            f'<text class="{style}" x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def x_axis(self, scale: Scale, values: Sequence[float], name: str, *, grid: bool = False) -> None:
        """A base line with numbers below it, and the axis's name under them."""
        for value in values:
            if grid:
                self.line(scale(value), self.top, scale(value), self.bottom, "grid")
            self.text(scale(value), self.bottom + 15, number(value), anchor="middle")
        self.line(self.left, self.bottom, self.right, self.bottom, "axis")
        self.text((self.left + self.right) / 2, self.bottom + 32, name, "label", "middle")

    def y_axis(self, scale: Scale, values: Sequence[float], name: str) -> None:
        """Grid lines with numbers on their left, and the axis's name above the area's corner."""
        for value in values:
            self.line(self.left, scale(value), self.right, scale(value), "grid")
            self.text(self.left - 8, scale(value) + 4, number(value), anchor="end")
        x, y = self.left - 46, (self.top + self.bottom) / 2
        self._parts.append(
            f'<text class="label" text-anchor="middle" transform="translate({_n(x)} {_n(y)}) rotate(-90)">'
            f"{escape(name)}</text>"
        )

    def svg(self) -> str:
        """The picture; its label is read out by screen readers."""
        return (
            f'<svg viewBox="0 0 {_n(self.width)} {_n(self.height)}" role="img" aria-label="{escape(self.label)}">'
            + "".join(self._parts)
            + "</svg>"
        )

    def _add(self, opened: str, title: str) -> None:
        self._parts.append(f"{opened}><title>{escape(title)}</title>{_end(opened)}" if title else f"{opened}/>")


def linear_scale(low: float, high: float, start: float, end: float) -> Scale:
    """Values of [low, high] to positions of [start, end]; a single value goes to the middle."""
    if high <= low:
        return lambda _: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)


def log_scale(low: float, high: float, start: float, end: float) -> Scale:
    """As :func:`linear_scale`, of positive values on a logarithmic axis."""
    inner = linear_scale(math.log10(low), math.log10(high), start, end)
    return lambda value: inner(math.log10(value))


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round numbers inside [low, high]."""
    if high <= low:
        return [low]
    raw = (high - low) / max(count, 1)
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def number(value: float) -> str:
    """A tick's number, short."""
    if value == 0:
        return "0"
    if abs(value) >= 10_000 or abs(value) < 0.001:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.4g}"


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _end(opened: str) -> str:
    return f"</{opened[1 : opened.index(' ')]}>"
