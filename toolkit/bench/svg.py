"""Plots as inline SVG: axes, lines, bands and bars, coloured by the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 14.0, 12.0, 44.0


@dataclass(frozen=True)
class Line:
    """A named line; ``band`` holds a low and high value for each point, or None. ``marks`` are
    words beside the points."""

    name: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float] | None] = ()
    dots: bool = False
    marks: Sequence[str] = ()


@dataclass(frozen=True)
class Bar:
    """A horizontal bar from ``start`` to ``end`` in a row; ``kind`` is its CSS class."""

    row: int
    start: float
    end: float
    kind: str
    title: str = ""


@dataclass(frozen=True)
class Axis:
    """Maps values to the picture. ``log`` needs values above zero."""

    low: float
    high: float
    near: float
    far: float
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value is drawn."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        share = (self._scaled(value) - low) / ((high - low) or 1.0)
        return self.near + (self.far - self.near) * min(max(share, 0.0), 1.0)

    def ticks(self) -> list[float]:
        """Round values to label, at most eight."""
        if self.log and len(ticks := _log_ticks(self.low, self.high)) > 1:
            return ticks
        step = _round_step((self.high - self.low) / 5 or 1.0)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]

    def _scaled(self, value: float) -> float:
        return math.log10(max(value, 1e-12)) if self.log else value


def line_chart(
    lines: Sequence[Line], x_label: str, y_label: str, *, log_x: bool = False, y_max: float = 0.0
) -> str:
    """Lines over common axes; empty text if there is nothing to draw."""
    points = [point for line in lines for point in line.points]
    if not points:
        return ""
    xs = [x for x, _ in points if not log_x or x > 0]
    tops = [high for line in lines for pair in line.band if pair for high in pair]
    top = y_max or max([y for _, y in points] + tops) * 1.08 or 1.0
    low_x = min(xs, default=0.1) if log_x else min(0.0, *xs) if len(xs) > 1 else 0.0
    x = Axis(low_x, max(xs, default=1.0), _LEFT, WIDTH - _RIGHT, log_x)
    y = Axis(0.0, top, HEIGHT - _BOTTOM, _TOP)
    drawn = [_frame(x, y, x_label, y_label, HEIGHT)]
    drawn += [_line(line, x, y, index) for index, line in enumerate(lines)]
    return _picture(drawn, HEIGHT) + legend([line.name for line in lines])


def bar_chart(bars: Sequence[Bar], x_label: str, window: tuple[float, float]) -> str:
    """Bars in rows over time, the measured window shaded."""
    if not bars:
        return ""
    count = max(bar.row for bar in bars) + 1
    thick = max(2.0, min(9.0, 440 / count))
    height = _TOP + count * thick + _BOTTOM
    low = min(window[0], *(bar.start for bar in bars))
    high = max(window[1], *(bar.end for bar in bars))
    x = Axis(low, high, _LEFT, WIDTH - _RIGHT)
    y = Axis(0.0, float(count), _TOP, height - _BOTTOM)
    shade = (
        f'<rect class="window" x="{x.at(window[0]):.1f}" y="{_TOP}" '
        f'width="{x.at(window[1]) - x.at(window[0]):.1f}" height="{count * thick:.1f}"/>'
    )
    drawn = [shade, _frame(x, y, x_label, "requests", height)]
    for bar in bars:
        left, right = x.at(bar.start), x.at(bar.end)
        drawn.append(
            f'<rect class="{bar.kind}" x="{left:.1f}" y="{y.at(bar.row):.1f}" '
            f'width="{max(right - left, 0.6):.1f}" height="{thick * 0.8:.1f}">'
            f"<title>{escape(bar.title)}</title></rect>"
        )
    return _picture(drawn, height)


def legend(names: Sequence[str]) -> str:
    """Which colour is which; nothing for a single line."""
    if len(names) < 2:
        return ""
    items = (
        f'<span><i class="key c{index % 8}"></i>{escape(name)}</span>'
        for index, name in enumerate(names)
    )
    return f'<p class="legend">{"".join(items)}</p>'


def _picture(parts: Iterable[str], height: float) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img" '
        f'preserveAspectRatio="xMidYMid meet">{"".join(parts)}</svg>'
    )


def _frame(x: Axis, y: Axis, x_label: str, y_label: str, height: float) -> str:
    bottom = max(y.near, y.far)
    parts = []
    for tick in x.ticks():
        at = x.at(tick)
        parts.append(f'<path class="grid" d="M{at:.1f} {_TOP}V{bottom:.1f}"/>')
        parts.append(
            f'<text x="{at:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{label(tick)}</text>'
        )
    for tick in y.ticks() if y.near > y.far else ():
        at = y.at(tick)
        parts.append(f'<path class="grid" d="M{x.near} {at:.1f}H{x.far}"/>')
        parts.append(
            f'<text x="{x.near - 7}" y="{at + 4:.1f}" text-anchor="end">{label(tick)}</text>'
        )
    middle = (x.near + x.far) / 2
    parts.append(
        f'<text class="axis" x="{middle:.1f}" y="{height - 8:.1f}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
    )
    center = (_TOP + bottom) / 2
    parts.append(
        f'<text class="axis" transform="translate(13 {center:.1f}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_label)}</text>'
    )
    return "".join(parts)


def _line(line: Line, x: Axis, y: Axis, index: int) -> str:
    places = [(x.at(a), y.at(b)) for a, b in line.points]
    path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
    parts = [f'<path class="line s{index % 8}" d="{path}"/>']
    for (at, _), pair in zip(places, line.band, strict=False):
        if pair:
            low, high = y.at(pair[0]), y.at(pair[1])
            parts.append(f'<path class="band s{index % 8}" d="M{at:.1f} {low:.1f}V{high:.1f}"/>')
    if line.dots:
        for (at, height), (a, b) in zip(places, line.points, strict=True):
            parts.append(
                f'<circle class="dot f{index % 8}" cx="{at:.1f}" cy="{height:.1f}" r="4">'
                f"<title>{escape(line.name)}: {label(a)}, {label(b)}</title></circle>"
            )
    parts += [_mark(word, *place, x) for word, place in zip(line.marks, places, strict=False)]
    return "".join(parts)


def _mark(word: str, at: float, height: float, x: Axis) -> str:
    """Beside the point, on the side that has room."""
    right = at > (x.near + x.far) / 2
    anchor = "end" if right else "start"
    return (
        f'<text class="mark" x="{at - 9 if right else at + 9:.1f}" y="{height + 4:.1f}" '
        f'text-anchor="{anchor}">{escape(word)}</text>'
    )


def label(value: float) -> str:
    """A tick's text: as short as it can be."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{round(value, 6):g}"


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(
        (factor * power for factor in (1.0, 2.0, 2.5, 5.0) if factor * power >= step), 10 * power
    )


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if math.log10(high / low) < 2.5 else (1,)
    ticks = [factor * 10.0**decade for decade in decades for factor in steps]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
