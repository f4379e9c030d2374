"""Rate and distortion: a panel of bytes against KL, a line for each method."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from benchmarks.common.pictures import ACCENT, PAPER, style_panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHADES = ("#8f98a3", "#a97fb3", "#6f9f6f", "#b58d4c", "#5f9ea0", "#b36f7d", "#7d86c4", "#93934c", "#997766", "#66a3a3")
SAME = 1.01
"""Sizes that differ by less than this factor are one: a method's files differ a little from task to task."""
MARKS = "ovs^DPX<>*hp"


def rate_panel(
    axes: "Axes",
    curves: Mapping[str, Sequence[Sequence[float]]],
    title: str,
    checkpoint: str,
    ticks: Mapping[float, str],
    ours: Mapping[str, str] | None = None,
) -> None:
    """Draw a panel.

    Parameters
    ----------
    axes : Axes
    curves : mapping of str to sequence of (share, KL)
        Line of each method.
    title : str
    checkpoint : str
        What shares are of, such as "fp32 checkpoint".
    ticks : mapping of float to str
        Marked shares, and their labels.
    ours : mapping of str to str, optional
        Our own method and its label; by default the preset `best`.
    """
    ours = ours or {"best": "dtscodec (preset best)"}
    others = [method for method in curves if method not in ours and method != "paper"]
    for number, method in enumerate(sorted(others, key=str.lower)):
        _line(axes, curves[method], method, SHADES[number % len(SHADES)], MARKS[number % len(MARKS)], 1.1)
    _line(axes, curves.get("paper", ()), "DTS as published (our preset paper)", PAPER, "s", 1.8)
    for method, label in ours.items():
        _line(axes, curves.get(method, ()), label, ACCENT, "o", 2.6)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(list(ticks), list(ticks.values()))
    style_panel(axes, title, f"bytes on disk, share of the {checkpoint}")


def _line(axes: "Axes", points: Sequence[Sequence[float]], label: str, colour: str, mark: str, width: float) -> None:
    if points:
        shares, kls = zip(*_settled(points), strict=True)
        axes.plot(shares, kls, label=label, color=colour, marker=mark, markersize=2.2 * width + 1, linewidth=width)


def _settled(points: Sequence[Sequence[float]]) -> list[Sequence[float]]:
    """Of points of about the same size the last one, when all tasks have it."""
    follows = [*points[1:], [float("inf")]]
    return [point for point, after in zip(points, follows, strict=True) if after[0] > SAME * point[0]]
