"""Part `calibration`: packs that were fitted to texts, or made for layers' outputs (ESD), against plain ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.merging.bench import FOUR, TRAINED, MergingBench, State
from benchmarks.merging.merges import grams
from benchmarks.merging.packs import decoded, pack, plain
from dtscodec.calibration.fit import fit
from dtscodec.encoding.config import Best, EncodeConfig
from dtscodec.encoding.targets import Size

PART = "calibration"
SIZES = ("0.1%", "0.25%")
TEXTS, OTHERS = 64, (8, 512)
SEVERAL = ("movie", "nyt")
"""Tasks that other numbers of texts are tried on, at the second size."""
PLAIN, ESD, FITTED, BOTH = "plain", "ESD", "fitted", "ESD, fitted"
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
    """All tasks on 64 texts; two of them on fewer and more; and both ways together on these two."""
    for size in SIZES:
        for task in FOUR:
            _plain(bench, size, task)
            _fitted(bench, size, task, TEXTS)
            _esd(bench, size, task, TEXTS)
            for name, options in PARTS.items():
                _fitted(bench, size, task, TEXTS, name, options)
    for texts in OTHERS:
        for task in SEVERAL:
            _fitted(bench, SIZES[1], task, texts)
            _esd(bench, SIZES[1], task, texts)
    for task in SEVERAL:
        _both(bench, task)


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


def _both(bench: MergingBench, task: str) -> None:
    """`encode_calibrated` with `Best(grams=...)`."""

    def make() -> tuple[State, dict[str, float]]:
        return _fit(bench, task, _esd_pack(bench, SIZES[1], task, TEXTS, to_fit=True), TEXTS)

    bench.row(PART, BOTH, setting(SIZES[1], TEXTS), task, make)


def _fit(bench: MergingBench, task: str, path: Path, texts: int, **options: Any) -> tuple[State, dict[str, float]]:
    out = path.parent.with_name(f"{path.parent.name}-fitted-{texts}") / path.name
    out.parent.mkdir(exist_ok=True)
    fit(path, bench.directory(task), out, bench.base, samples=bench.texts_file(task, texts), force=True, **options)
    return decoded(out, bench.base)


def _esd(bench: MergingBench, size: str, task: str, texts: int) -> None:
    bench.row(PART, ESD, setting(size, texts), task, lambda: decoded(_esd_pack(bench, size, task, texts), bench.base))


def _esd_pack(bench: MergingBench, size: str, task: str, texts: int, to_fit: bool = False) -> Path:
    """`encode` with `Best(grams=...)`, at the default damping."""
    known = str(grams(bench, task, texts, TRAINED))
    config = EncodeConfig(Size.parse(size), Best(grams=known), will_be_fitted=to_fit)
    return pack(bench, task, f"esd-{texts}{'-to-fit' if to_fit else ''}", bench.base, size, config)
