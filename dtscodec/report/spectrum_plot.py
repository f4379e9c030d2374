"""Spectra: norms of a pack's components, a panel for each module and a line for each layer."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from dtscodec.messages import shorten
from dtscodec.report.heat_map import LONGEST
from dtscodec.report.markup import Markup, element, join
from dtscodec.report.module_grid import by_module
from dtscodec.report.statistics import TensorStatistics

ITEM = TypeVar("ITEM")

MAX_PANELS, MAX_LINES, MAX_POINTS = 24, 32, 48
DEPTH_STEPS = 7
"""Colours from the first layer to the last, each a class of the style sheet."""

_WIDTH, _ACROSS = 860, 3
_PANEL, _HEIGHT, _LEFT, _TOP = 262, 116, 44, 44
_ROW = _HEIGHT + 88


@dataclass(frozen=True, slots=True)
class _Frame:
    """The axes that all panels share: components of the longest line, and log10 of both ends of the y axis."""

    longest: int
    low: float
    high: float

    def at(self, component: int, value: float) -> tuple[float, float]:
        """Return the position of a component in a panel, in pixels."""
        across = (component - 1) / max(1, self.longest - 1)
        up = (math.log10(value) - self.low) / (self.high - self.low)
        return _LEFT + across * (_PANEL - _LEFT - 14), _TOP + _HEIGHT * (1 - up)


def spectra(tensors: Iterable[TensorStatistics]) -> Markup | None:
    """Return the picture of all spectra; None if no tensor is of low rank.

    Parameters
    ----------
    tensors : iterable of TensorStatistics
        Tensors of a pack.
    """
    panels = _panels(tensor for tensor in tensors if any(tensor.spectra))
    lines = [line for _, members in panels for line in map(_line, members) if line]
    if not lines:
        return None
    # All panels have the same axes, so that modules can be compared.
    ends = [value for line in lines for value in (line[0], line[-1])]
    frame = _Frame(max(map(len, lines)), math.log10(min(ends)) - 0.1, math.log10(max(ends)) + 0.1)
    shapes = []
    for number, (title, members) in enumerate(panels):
        place = f"translate({number % _ACROSS * (_WIDTH - _PANEL) / (_ACROSS - 1):g} {number // _ACROSS * _ROW})"
        shapes.append(element("g", _panel(title, members, frame), transform=place))
    height = -(-len(panels) // _ACROSS) * _ROW
    described = "Norms of components by module and layer; each line ends at the rank that the pack stores."
    return element(
        "svg", *shapes, role="img", aria_label=described, class_="spectra", width=_WIDTH, height=height,
        viewBox=f"0 0 {_WIDTH} {height}",
    )  # fmt: skip


def _panels(tensors: Iterable[TensorStatistics]) -> list[tuple[str, Sequence[TensorStatistics]]]:
    """Return title and tensors of each panel: modules in layers, then all tensors outside of layers."""
    chosen = list(tensors)
    modules = by_module(tensor for tensor in chosen if tensor.depth is not None)
    others = [tensor for tensor in chosen if tensor.depth is None]
    panels: list[tuple[str, Sequence[TensorStatistics]]] = [(name, group.tensors) for name, group in modules.items()]
    # Leave room for the panel of the others.
    panels = panels[: MAX_PANELS - 1]
    return [*panels, ("outside of layers", others)] if others else panels


def _panel(title: str, members: Sequence[TensorStatistics], frame: _Frame) -> Markup:
    shown = _thinned(sorted(members, key=lambda tensor: tensor.depth or 0), MAX_LINES)
    ranks = [rank for tensor in members for rank in tensor.ranks]
    cut = f"cut at {min(ranks)}" if min(ranks) == max(ranks) else f"cut at {min(ranks)}–{max(ranks)}"
    shapes = [
        element("text", element("title", title), shorten(title, 30), class_="title", x=_LEFT, y=14),
        element("text", cut + _left_out(members), class_="axis", x=_LEFT, y=30),
        *_axes(frame),
    ]
    deepest = max((tensor.depth or 0 for tensor in shown), default=0)
    for tensor in shown:
        # Colour by depth, up to the deepest layer that is shown.
        step = (tensor.depth or 0) * (DEPTH_STEPS - 1) // max(1, deepest)
        shapes += _curve(tensor, frame, step)
    return join(shapes)


def _left_out(members: Sequence[TensorStatistics]) -> str:
    """Return the share of energy that is left out; an empty text without a fine-tune."""
    shares = [tensor.error**2 for tensor in members if tensor.error is not None]
    if not shares:
        return ""
    low, high = f"{100 * min(shares):.0f}", f"{100 * max(shares):.0f}"
    return f", {low} % left out" if low == high else f", {low}–{high} % left out"


def _axes(frame: _Frame) -> list[Markup]:
    right, bottom = _PANEL - 14, _TOP + _HEIGHT
    shapes = []
    for value in _ticks(frame):
        y = frame.at(1, value)[1]
        shapes.append(element("line", class_="rule", x1=_LEFT, x2=right, y1=y, y2=y))
        shapes.append(element("text", f"{value:g}", class_="axis", x=_LEFT - 6, y=y + 4, text_anchor="end"))
    shapes.append(element("line", class_="rule", x1=_LEFT, x2=right, y1=bottom, y2=bottom))
    for component in sorted({1, (1 + frame.longest) // 2, frame.longest}):
        x = frame.at(component, 1.0)[0]
        shapes.append(element("text", f"{component:,}", class_="axis", x=x, y=bottom + 16, text_anchor="middle"))
    return shapes


def _ticks(frame: _Frame) -> list[float]:
    """Return round values on the y axis: 1, 2 and 5 of each decade, or some powers of ten for many decades."""
    decades = range(math.floor(frame.low), math.ceil(frame.high) + 1, max(1, int(frame.high - frame.low) // 4))
    steps = (1, 2, 5) if frame.high - frame.low < 2 else (1,)
    values = [float(f"{step}e{decade}") for decade in decades for step in steps]
    return [value for value in values if frame.low < math.log10(value) < frame.high]


def _curve(tensor: TensorStatistics, frame: _Frame, step: int) -> list[Markup]:
    line = _line(tensor)
    if not line:
        return []
    chosen = _thinned(range(1, len(line) + 1), MAX_POINTS)
    points = [frame.at(component, line[component - 1]) for component in chosen]
    x, y = points[-1]
    path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
    title = element(
        "title", f"{shorten(tensor.name, LONGEST)}: {len(line)} components, {line[0]:.3g} to {line[-1]:.3g}"
    )
    return [
        element("polyline", title, class_=f"d{step}", points=path),
        element("circle", title, class_=f"e{step}", cx=x, cy=y, r=2.5),
    ]


def _line(tensor: TensorStatistics) -> list[float]:
    """Return the spectrum of a tensor without zeros; for several blocks, the root mean square of theirs."""
    longest = max(map(len, tensor.spectra), default=0)
    squares = [[s[i] ** 2 for s in tensor.spectra if i < len(s)] for i in range(longest)]
    line = [math.sqrt(sum(column) / len(column)) for column in squares]
    # The axis is logarithmic.
    return [value for value in line if value > 0]


def _thinned(items: Sequence[ITEM], most: int) -> list[ITEM]:
    """Return at most `most` items, evenly spaced, with the first and the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]
