"""Part `calibration`: packs that were fitted to texts, against plain ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.merging.bench import FOUR, MergingBench, State
from benchmarks.merging.packs import decoded, pack, plain
from dtscodec.calibration.fit import fit
from dtscodec.encoding.config import EncodeConfig
from dtscodec.encoding.targets import Size

PART = "calibration"
SIZES = ("0.1%", "0.25%")
TEXTS, OTHERS = 64, (8, 512)
SEVERAL = ("movie", "nyt")
"""Tasks that other numbers of texts are tried on, at the second size."""
PLAIN, FITTED = "plain", "fitted"
PARTS: dict[str, dict[str, Any]] = {
    "biases corrected": {"steps": 0, "bias_correction": True},
    "fitted, no elements": {"elements": False},
    "fitted, biases corrected": {"bias_correction": True},
}
"""Other ways to fit, with their options of `fit`."""
NOTHING: Mapping[str, Any] = {}


def setting(size: str, texts: int) -> str:
    """How the log calls it.

    >>> setting("0.1%", 64)
    '0.1%, 64 texts'
    """
    return f"{size}, {texts} texts"


def run(bench: MergingBench) -> None:
    """All tasks on 64 texts, and two of them on fewer and more."""
    for size in SIZES:
        for task in FOUR:
            _plain(bench, size, task)
            _fitted(bench, size, task, TEXTS)
            for name, options in PARTS.items():
                _fitted(bench, size, task, TEXTS, name, options)
    for texts in OTHERS:
        for task in SEVERAL:
            _fitted(bench, SIZES[1], task, texts)


def _plain(bench: MergingBench, size: str, task: str) -> None:
    bench.row(PART, PLAIN, size, task, lambda: decoded(plain(bench, task, size), bench.base))


def _fitted(
    bench: MergingBench, size: str, task: str, texts: int, name: str = FITTED, options: Mapping[str, Any] = NOTHING
) -> None:
    """`encode --calibration SAMPLES`; what is encoded first is the same for all numbers of texts."""

    def make() -> tuple[State, dict[str, float]]:
        config = EncodeConfig(Size.parse(size)).for_fitting()
        return _fit(bench, task, pack(bench, task, "to-fit", bench.base, size, config), texts, **options)

    bench.row(PART, name, setting(size, texts), task, make)


def _fit(bench: MergingBench, task: str, path: Path, texts: int, **options: Any) -> tuple[State, dict[str, float]]:
    out = path.parent.with_name(f"{path.parent.name}-fitted-{texts}") / path.name
    out.parent.mkdir(exist_ok=True)
    fit(path, bench.directory(task), out, bench.base, samples=bench.texts_file(task, texts), force=True, **options)
    return decoded(out, bench.base)
