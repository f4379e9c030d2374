"""Part `dts`: packs of equal bytes against the pre-trained base (DTS-T) and against merged ones (DTS-D)."""

import contextlib
import io
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.merging.bench import FOUR, MergingBench, State
from benchmarks.merging.merges import ARITHMETIC, AVERAGE, ESM, ISO_C, ISO_CTS, TIES, TSV_M, merged
from benchmarks.merging.packs import PRETRAINED, decoded, pack
from benchmarks.merging.rows import Row
from dtscodec.cli.main import main as command

PART = "dts"
SIZES = ("0.25%", "0.1%")
MERGED = (AVERAGE, ARITHMETIC, TIES, TSV_M, ISO_C, ISO_CTS, ESM)
SMALL = (PRETRAINED, AVERAGE.name)
"""Bases that packs of the smaller size are made against too."""
THREE = FOUR[:3]
DIRECTORY = "directory of three"


def run(bench: MergingBench) -> None:
    """All bases; and a directory of three fine-tunes as the command makes it, without any pre-trained base."""
    for base in (PRETRAINED, AVERAGE.name):
        for size in SIZES:
            _packs(bench, base, size)
    _directory(bench)
    for merge in MERGED[1:]:
        _packs(bench, merge.name, SIZES[0])


def _packs(bench: MergingBench, base: str, size: str) -> None:
    if bench.log.has(PART, base, size, *FOUR):
        return
    place = bench.base
    if base != PRETRAINED:
        place = merged(bench, FOUR, next(merge for merge in MERGED if merge.name == base))
    for task in FOUR:
        bench.row(PART, base, size, task, partial(_packed, bench, task, base, place, size))


def _packed(bench: MergingBench, task: str, base: str, place: Path, size: str) -> tuple[State, dict[str, float]]:
    return decoded(pack(bench, task, base, place, size), place)


def _directory(bench: MergingBench) -> None:
    """`dtscodec family average`, at the size of the packs above."""
    if bench.log.has(PART, DIRECTORY, SIZES[0], "", *THREE):
        return
    folder = bench.folder / "three"
    shutil.rmtree(folder, ignore_errors=True)
    fines = [str(bench.directory(task)) for task in THREE]
    with contextlib.redirect_stdout(io.StringIO()):
        assert command(["family", "average", *fines, "-o", str(folder), "--size", SIZES[0]]) == 0
    base = folder / "base.safetensors"
    for task in THREE:
        made = folder / "packs" / f"{task}.safetensors"
        bench.row(PART, DIRECTORY, SIZES[0], task, partial(decoded, made, base))
    packs = sum(path.stat().st_size for path in (folder / "packs").iterdir())
    plain = sum(tensor.nbytes for tensor in bench.fine(THREE[0]).values())
    whole, shared = sum(_sizes(folder)), base.stat().st_size
    sizes: dict[str, float] = {"directory": whole, "base": shared, "packs": packs, "plain_base": plain}
    bench.log.put(Row(PART, DIRECTORY, SIZES[0], "", sizes))


def _sizes(folder: Path) -> Iterator[int]:
    return (path.stat().st_size for path in folder.rglob("*") if path.is_file())
