"""Rate and distortion on the encoder: bytes against KL, a line for each method."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.common.pictures import INK, TEXT, save_picture
from benchmarks.common.rate_panel import rate_panel

TICKS = {0.0003: "0.03 %", 0.001: "0.1 %", 0.003: "0.3 %", 0.01: "1 %", 0.03: "3 %"}


def draw_fidelity(result: Mapping[str, Any], path: Path) -> None:
    """Write the picture of a result (the content of ``result.json``)."""
    figure = Figure(figsize=(9.6, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    curves, checkpoint = result["curves"], "fp32 checkpoint"
    rate_panel(left, curves["two_classes"], "KL from the fine-tune, four tasks of two classes", checkpoint, TICKS)
    rate_panel(right, curves["sixteen"], "the same, one task of sixteen classes", checkpoint, TICKS)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=4, frameon=False, labelcolor=INK, fontsize=TEXT - 2
    )
    save_picture(figure, path)
