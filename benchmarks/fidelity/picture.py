"""Rate and distortion: bytes against KL, a line for each method."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from benchmarks.common.pictures import ACCENT, INK, PAPER, TEXT, save_picture, style_panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHADES = ("#8f98a3", "#a97fb3", "#6f9f6f", "#b58d4c", "#5f9ea0", "#b36f7d", "#7d86c4", "#93934c", "#997766", "#66a3a3")
SAME = 1.01
"""Sizes that differ by less than this factor are one: a method's files differ a little from task to task."""
MARKS = "ovs^DPX<>*hp"


def draw_fidelity(result: Mapping[str, Any], path: Path) -> None:
    """Write the picture of a result (the content of ``result.json``)."""
    figure = Figure(figsize=(9.6, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    _panel(left, result["curves"]["two_classes"], "KL from the fine-tune, four tasks of two classes")
    _panel(right, result["curves"]["sixteen"], "the same, one task of sixteen classes")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=4, frameon=False, labelcolor=INK, fontsize=TEXT - 2
    )
    save_picture(figure, path)


def _panel(axes: "Axes", curves: Mapping[str, Sequence[Sequence[float]]], title: str) -> None:
    others = [method for method in curves if method not in ("best", "paper")]
    for number, method in enumerate(sorted(others, key=str.lower)):
        _line(axes, curves[method], method, SHADES[number % len(SHADES)], MARKS[number % len(MARKS)], 1.1)
    _line(axes, curves.get("paper", ()), "DTS as published (our preset paper)", PAPER, "s", 1.8)
    _line(axes, curves.get("best", ()), "dtscodec (preset best)", ACCENT, "o", 2.6)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([0.0003, 0.001, 0.003, 0.01, 0.03], ["0.03 %", "0.1 %", "0.3 %", "1 %", "3 %"])
    style_panel(axes, title, "bytes on disk, share of the fp32 checkpoint")


def _line(axes: "Axes", points: Sequence[Sequence[float]], label: str, colour: str, mark: str, width: float) -> None:
    if points:
        shares, kls = zip(*_settled(points), strict=True)
        axes.plot(shares, kls, label=label, color=colour, marker=mark, markersize=2.2 * width + 1, linewidth=width)


def _settled(points: Sequence[Sequence[float]]) -> list[Sequence[float]]:
    """Of points of about the same size the last one, when all tasks have it."""
    follows = [*points[1:], [float("inf")]]
    return [point for point, after in zip(points, follows, strict=True) if after[0] > SAME * point[0]]
