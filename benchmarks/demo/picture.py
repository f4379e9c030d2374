"""Draw the demo's result for the README: what a pack costs and what it keeps."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The picture has no background. This grey has equal contrast (4.3) to GitHub's light and dark pages.
INK = "#797979"
PLAIN = "#8f98a3"
ACCENT = "#2f81f7"
TEXT = 11


def draw(result: dict[str, Any], path: Path) -> None:
    """Write the picture of a result (the content of ``result.json``), in the format of the file's ending."""
    figure = Figure(figsize=(8.4, 2.5), layout="constrained")
    sizes, accuracies = figure.subplots(1, 2, width_ratios=[1, 1])
    _sizes(sizes, result)
    _accuracies(accuracies, result)
    figure.savefig(path, dpi=200, transparent=True, metadata=_no_date(path))


def _sizes(axes: "Axes", result: dict[str, Any]) -> None:
    checkpoint, pack = (result["bytes"][kind] / 1e6 for kind in ("checkpoint", "pack"))
    labels = [f"{checkpoint:.1f} MB", f"{pack:.2f} MB, {100 * result['share']:.2f} %"]
    _bars(axes, ["fine-tune", "pack"], [checkpoint, pack], labels, [PLAIN, ACCENT])
    axes.set_xscale("log")
    axes.set_xlim(0.1, 2000)
    axes.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    axes.set_title("Size on disk (MB, log scale)", loc="left", color=INK, fontsize=TEXT, fontweight="bold")


def _accuracies(axes: "Axes", result: dict[str, Any]) -> None:
    shown = {"base": "base", "finetune": "fine-tune", "decoded": "decoded pack"}
    values = [100 * result["fidelity"][model]["accuracy"] for model in shown]
    labels = [f"{value:.1f} %" for value in values]
    _bars(axes, list(shown.values()), values, labels, [PLAIN, PLAIN, ACCENT])
    axes.set_xlim(0, 115)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.set_title("Test accuracy (%)", loc="left", color=INK, fontsize=TEXT, fontweight="bold")


def _bars(axes: "Axes", names: list[str], values: list[float], labels: list[str], colours: list[str]) -> None:
    """Horizontal bars, each with its figure at its end."""
    bars = axes.barh(names, values, color=colours, height=0.6)
    axes.bar_label(bars, labels, padding=6, color=INK, fontsize=TEXT, fontweight="bold")
    # Room for three bars, the first on top, so that bars are equally thick whatever their number.
    axes.set_ylim((len(names) + 2) / 2, (len(names) - 4) / 2)
    axes.tick_params(axis="y", length=0, labelsize=TEXT, labelcolor=INK)
    axes.tick_params(axis="x", which="both", length=0, labelsize=TEXT - 2, labelcolor=INK)
    axes.grid(axis="x", color=INK, alpha=0.25, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def _no_date(path: Path) -> dict[str, str | None]:
    """Metadata that keeps the file the same on every run, where the format would hold a date."""
    return {"Date": None} if path.suffix == ".svg" else {}
