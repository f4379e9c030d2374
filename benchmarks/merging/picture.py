"""Merged bases, fusion and calibration in three panels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from benchmarks.common.pictures import ACCENT, GREEN, INK, TEXT, save_picture, style_panel
from benchmarks.merging import bases, calibration, esm, unseen
from benchmarks.merging.bench import FOUR
from benchmarks.merging.rows import Rows, rows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_merging(result: Mapping[str, Any], path: Path) -> None:
    """Write the picture of a result (the content of ``result.json``)."""
    rows = rows_of(row for part in result.values() for row in part["rows"])
    figure = Figure(figsize=(12.0, 4.2), layout="constrained")
    first, second, third = figure.subplots(1, 3, width_ratios=[1.1, 1.1, 1])
    _bars(first, _merged(rows), "One model for four tasks", "mean accuracy, alpha searched")
    _bars(second, _fused(rows), "A domain left out", "mean accuracy of four domains")
    _fits(third, rows)
    save_picture(figure, path)


def _bars(axes: "Axes", bars: Sequence[tuple[str, float, str]], title: str, below: str) -> None:
    names, values, colours = zip(*bars, strict=True) if bars else ((), (), ())
    axes.barh(names, [100 * value for value in values], color=colours, height=0.6)
    for place, value in enumerate(values):
        axes.text(
            100 * value - 0.6, place, f"{100 * value:.1f}", va="center", ha="right", color="white", fontsize=TEXT - 2
        )
    if values:
        axes.set_xlim(100 * min(values) - 5, 100 * max(values) + 1)
    style_panel(axes, title, f"{below}, %")
    axes.invert_yaxis()


def _merged(rows: Rows) -> list[tuple[str, float, str]]:
    found = []
    for part in (bases.PART, esm.PART):
        for name in rows.names(part):
            if "," in name:
                continue
            setting = bases.SEARCHED if rows.has(part, name, bases.SEARCHED, *FOUR) else bases.DEFAULT
            if rows.has(part, name, setting, *FOUR):
                colour = GREEN if name == "fine-tune" else INK if name == "pre-trained" else ACCENT
                found.append((name, rows.mean(part, name, setting, FOUR, "accuracy"), colour))
    return sorted(found, key=lambda bar: bar[1])


def _fused(rows: Rows) -> list[tuple[str, float, str]]:
    keys = dict.fromkeys((row.name, row.setting) for row in rows.of(unseen.PART))
    found = []
    for name, setting in keys:
        if rows.has(unseen.PART, name, setting, *FOUR):
            fused = name == unseen.FUSED
            colour = ACCENT if fused else GREEN if name == "fine-tune" else INK
            label = (
                setting.replace("adding up to", "sum").replace("what serves the seen tasks", "as serves the seen")
                if fused
                else name
            )
            found.append((label, rows.mean(unseen.PART, name, setting, FOUR, "accuracy"), colour))
    return sorted(found, key=lambda bar: bar[1])


def _fits(axes: "Axes", rows: Rows) -> None:
    """KL by that of the plain pack, against the number of texts, on the tasks that several were tried on."""
    size, tasks = calibration.SIZES[1], calibration.SEVERAL
    counts = sorted((calibration.TEXTS, *calibration.OTHERS))
    fitted = {n: (calibration.PART, calibration.FITTED, calibration.setting(size, n)) for n in counts}
    known = [n for n in counts if rows.has(*fitted[n], *tasks)]
    if known:
        plain = rows.mean(calibration.PART, calibration.PLAIN, size, tasks, "kl")
        ratios = [rows.mean(*fitted[n], tasks, "kl") / plain for n in known]
        axes.plot(known, ratios, color=ACCENT, marker="o", linewidth=2)
    axes.axhline(1.0, color=INK, linewidth=1, linestyle="--")
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(n) for n in counts])
    axes.set_ylim(0)
    style_panel(axes, f"Fitted: KL by plain's, {size}", f"calibration texts ({', '.join(tasks)})")
