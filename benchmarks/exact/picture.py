"""One curve from small lossy packs to exact ones, beside the peers: bytes against the error of the delta."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from benchmarks.common.pictures import ACCENT, INK, TEXT, save_picture, style_panel
from benchmarks.common.rate_panel import MARKS, SHADES
from benchmarks.exact.dts import NO_CODES, SEARCHED
from benchmarks.exact.schemes import PEERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TICKS = {0.0005: "0.05 %", 0.002: "0.2 %", 0.01: "1 %", 0.05: "5 %", 0.2: "20 %", 0.6: "60 %"}


def draw_exact(result: Mapping[str, Any], path: Path) -> None:
    """Write the picture of a result (the content of ``result.json``): a panel for each pair that has a curve."""
    pairs = list(dict.fromkeys(point["pair"] for point in result["curve"]))
    if not pairs:
        return
    figure = Figure(figsize=(4.8 * len(pairs), 4.4), layout="constrained")
    panels = figure.subplots(1, len(pairs), sharey=True, squeeze=False)[0]
    for axes, pair in zip(panels, pairs, strict=True):
        _panel(axes, result, pair)
    panels[0].set_ylabel("relative error of the delta", color=INK, fontsize=TEXT)
    panels[-1].legend(loc="lower left", frameon=False, labelcolor=INK, fontsize=TEXT - 3)
    save_picture(figure, path)


def _panel(axes: "Axes", result: Mapping[str, Any], pair: str) -> None:
    shares = {row["scheme"]: row["share"] for row in result["rows"] if row["pair"] == pair}
    points = sorted((point["share"], point["error"]) for point in result["curve"] if point["pair"] == pair)
    for number, peer in enumerate(peer for peer in PEERS if peer.name in shares):
        _mark(axes, shares[peer.name], peer.name, SHADES[number], MARKS[number + 1])
    if NO_CODES.name in shares:
        _mark(axes, shares[NO_CODES.name], NO_CODES.name, INK, "*")
    if SEARCHED.name in shares:
        points.append((shares[SEARCHED.name], 0.0))
    axes.plot(*zip(*points, strict=True), label="dtscodec", color=ACCENT, marker="o", markersize=5, linewidth=2.2)
    axes.set_xscale("log")
    axes.set_xticks(list(TICKS), list(TICKS.values()))
    axes.set_xlim(0.0004, 0.9)
    axes.set_ylim(-0.05, 1.05)
    style_panel(axes, pair, "bytes on disk, share of the checkpoint")


def _mark(axes: "Axes", share: float, label: str, colour: str, mark: str) -> None:
    axes.plot([share], [0.0], label=label, color=colour, marker=mark, markersize=7, linestyle="none", alpha=0.9)
