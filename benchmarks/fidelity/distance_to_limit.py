"""Distance of `best` from the limit of coded factors, by squared error alone, so without its gain."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

import dtscodec
from benchmarks.demo.finetune import base_directory
from benchmarks.fidelity.limit import bound
from benchmarks.fidelity.sweep import FineTuneBench
from dtscodec.encoding.config import Best, EncodeConfig
from dtscodec.encoding.presets.recipe import LEAST_ERROR
from dtscodec.encoding.targets import Size
from dtscodec.linalg.spectrum import singular_values

SIZES = ("0.05%", "0.1%", "0.25%", "0.8%", "3%")
Spectrum = tuple[tuple[int, int], "np.ndarray[tuple[int, ...], np.dtype[np.float64]]"]


def distances(bench: FineTuneBench) -> dict[str, Any]:
    """For each size the relative error of all matrices, and the least that any code of their factors could have.

    The limit gets every bit of the file; in the row of a tensor, those that the tensor got.
    """
    spectra = {name: _spectrum(delta) for name, delta in bench.weights.matrices().items() if delta.any()}
    whole = sum(float((values**2).sum()) for _, values in spectra.values())
    rows = {}
    for size in SIZES:
        path = bench.encode(EncodeConfig(Size.parse(size), Best(LEAST_ERROR)))
        rows[size] = _row(path, bench.directory, spectra, whole)
        path.unlink()
    return rows


def _spectrum(delta: Tensor) -> Spectrum:
    return (delta.shape[0], delta.shape[1]), singular_values(delta).numpy()


def _row(path: Path, fine: Path, spectra: dict[str, Spectrum], whole: float) -> dict[str, Any]:
    compared = dtscodec.compare(path, fine, base_directory())
    errors = {item.size.name: item.closeness.error_square for item in compared.tensors if item.closeness}
    total = sum(errors.get(name, 0.0) for name in spectra)
    least = bound(list(spectra.values()), 8 * compared.pack_bytes)
    sizes = {item.size.name: item.size.size for item in compared.tensors}
    return {
        "error": (total / whole) ** 0.5,
        "limit": (least / whole) ** 0.5,
        "tensors": {name: _of_tensor(errors.get(name, 0.0), spectra[name], sizes[name]) for name in spectra},
    }


def _of_tensor(error: float, spectrum: Spectrum, size: int) -> Sequence[float]:
    """Bytes, relative error, limit at these bytes."""
    energy = float((spectrum[1] ** 2).sum())
    return [size, round((error / energy) ** 0.5, 4), round((bound([spectrum], 8 * size) / energy) ** 0.5, 4)]
