"""Rate and distortion on a language model: bytes against KL, a line for each method."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.common.pictures import INK, TEXT, save_picture
from benchmarks.common.rate_panel import rate_panel
from benchmarks.language.bench import BEST, CALIBRATED, UNROUNDED

TICKS = {0.0005: "0.05 %", 0.002: "0.2 %", 0.005: "0.5 %", 0.02: "2 %", 0.08: "8 %"}


def draw_language(result: Mapping[str, Any], path: Path) -> None:
    """Write the picture of a result (the content of ``result.json``)."""
    figure = Figure(figsize=(9.6, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    curves, is_calibrated = result["curves"], result["calibrated"]
    panels = ((left, False, "without data"), (right, True, "calibrated with 64 texts"))
    for axes, fitted, title in panels:
        chosen = {
            method: line
            for method, line in curves.items()
            if is_calibrated[method] == fitted and method not in UNROUNDED
        }
        ours = {CALIBRATED: "dtscodec, calibrated"} if fitted else {BEST: "dtscodec (preset best)"}
        rate_panel(axes, chosen, f"KL per token, {title}", "bf16 checkpoint", TICKS, ours)
        axes.legend(loc="lower left", frameon=False, labelcolor=INK, fontsize=TEXT - 3)
    save_picture(figure, path)
