"""The result as a picture: what grows as models grow, and many fine-tunes of one base."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from benchmarks.common.pictures import ACCENT, GREEN, INK, PAPER, TEXT, save_picture, style_panel
from benchmarks.speed.engines import DASK, title
from benchmarks.speed.factors import RANK
from benchmarks.speed.models import SIZE
from benchmarks.speed.power_law import FIT_FROM, exponent
from benchmarks.speed.results import engine_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = Sequence[tuple[float, float]]
SIZES = {1e8: "0.1 B", 5e8: "0.5 B", 1e9: "1 B", 3e9: "3 B", 6.7e9: "6.7 B"}


def draw_speed(result: Mapping[str, Any], path: Path) -> None:
    """Write the picture of a result (the content of ``result.json``); what it lacks stays empty."""
    figure = Figure(figsize=(9.6, 8.0), layout="constrained")
    panels: list[tuple[str, Callable[[Axes, Mapping[str, Any]], None]]] = [
        ("models", _seconds),
        ("models", _bytes),
        ("factors", _factors),
        ("many", _many),
    ]
    for axes, (part, panel) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        axes.set_visible(part in result)
        if part in result:
            panel(axes, result)
    save_picture(figure, path)


def _seconds(axes: "Axes", result: Mapping[str, Any]) -> None:
    for engine, colour, mark in (("1", PAPER, "s"), ("2", ACCENT, "o"), (DASK, GREEN, "^")):
        points = [(row["parameters"], row["seconds"]) for row in engine_rows(result, engine)]
        _line(axes, points, title(engine) + _grows(points), colour, mark)
    _growing(axes, f"Encoding a model, --size {SIZE}", "seconds", powers=True)


def _bytes(axes: "Axes", result: Mapping[str, Any]) -> None:
    rows = engine_rows(result, "1") or engine_rows(result, "2")
    kinds = [("read", "bytes read", ACCENT, "o"), ("checkpoint", "a checkpoint", INK, "D")]
    kinds += [("peak", "peak memory", PAPER, "s"), ("written", "bytes written", GREEN, "^")]
    for key, label, colour, mark in kinds:
        _line(axes, [(row["parameters"], row[key] / 1e9) for row in rows], label, colour, mark)
    _growing(axes, f"Memory and bytes moved, {title(rows[0]['engine']) if rows else ''}", "GB")


def _factors(axes: "Axes", result: Mapping[str, Any]) -> None:
    rows = result["factors"]["rows"]
    kinds = [("seconds", f"at ranks of {SIZE}", ACCENT, "o"), ("seconds_fixed", f"at rank {RANK}", PAPER, "s")]
    for key, label, colour, mark in kinds:
        points = [(row["parameters"], row[key]) for row in rows]
        _line(axes, points, label + _grows(points), colour, mark)
    _growing(axes, "Factors of all matrices of a model, one thread", "seconds", powers=True)


def _many(axes: "Axes", result: Mapping[str, Any]) -> None:
    row = result["many"]
    labels = [f"{row['fine_tunes']} commands,\nbase not hashed", "one command"]
    seconds = [row[key]["seconds"] for key in ("single", "together")]
    bars = axes.barh(labels, seconds, color=[PAPER, ACCENT], height=0.5)
    axes.bar_label(bars, [f" {value:.0f} s" for value in seconds], color=INK, fontsize=TEXT - 1)
    axes.set_xlim(0, 1.2 * max(seconds))
    style_panel(axes, f"{row['fine_tunes']} fine-tunes of {row['parameters'] / 1e9:.1f} B, one worker", "seconds")
    axes.grid(visible=False, axis="y")
    axes.set_axisbelow(True)


def _grows(points: Points) -> str:
    """The exponent of models that are not small."""
    larger = [point for point in points if point[0] >= FIT_FROM]
    if len(larger) < 2:
        return ""
    return f": power {exponent(*zip(*larger, strict=True)):.2f}"


def _steps(limits: tuple[float, float]) -> tuple[float, ...]:
    """Which multiples of powers of ten have a tick: only these powers where there are enough of them."""
    return (1.0,) if limits[1] / limits[0] > 1000 else (1.0, 2.0, 5.0)


def _line(axes: "Axes", points: Points, label: str, colour: str, mark: str) -> None:
    if points:
        axes.plot(*zip(*points, strict=True), label=label, color=colour, marker=mark, markersize=5, linewidth=1.8)


def _growing(axes: "Axes", name: str, unit: str, powers: bool = False) -> None:
    """Logarithmic both ways, over the sizes of models; lines that grow leave a corner for the legend."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = axes.get_xlim()
    shown = {size: label for size, label in SIZES.items() if low <= size <= high}
    axes.set_xticks(list(shown), list(shown.values()))
    axes.yaxis.set_major_locator(LogLocator(subs=_steps(axes.get_ylim())))
    axes.yaxis.set_major_formatter("{x:g}")
    style_panel(axes, name, "parameters", unit)
    corner: Literal["lower right", "upper left"] = "lower right" if powers else "upper left"
    legend = axes.legend(loc=corner, frameon=False, labelcolor=INK, fontsize=TEXT - 2)
    if powers:
        legend.set_title("power of parameters, from 0.5 B on")
        legend.get_title().set(color=INK, fontsize=TEXT - 2)
