"""Times that are compared with each other, taken in turn in one process: ``python -m benchmarks.exact.speed_worker``.

A machine that is shared is not the same from minute to minute. In turns, all ways meet the same moments.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from benchmarks.common.process_usage import run_measured
from benchmarks.exact.dts import CODES, NO_CODES
from benchmarks.exact.pair import Pair
from benchmarks.exact.schemes import FAST
from benchmarks.exact.worker import stay_on_one_core

ENCODE, FAST_ENCODE = "encode without codes", f"encode, {FAST.name}"
DECODE, FAST_DECODE = "decode without codes", f"decode, {FAST.name}"
CODED_DECODE, LOSSY_DECODE = "decode with codes", "lossy decode"


@dataclass(frozen=True, slots=True)
class SpeedRow:
    """Least seconds of each way on a pair.

    Parameters
    ----------
    pair : str
        What was measured.
    seconds : dict of str to float
        By the names of this module.
    """

    pair: str
    seconds: dict[str, float]


def measure_speed(pair: Pair, codes: str, turns: int, folder: Path) -> SpeedRow:
    """Return the times of a pair, from a process of its own on one core.

    Parameters
    ----------
    pair : Pair
        The pair.
    codes : str
        Size of the codes; one of `benchmarks.exact.dts.CODES`.
    turns : int
        How often each way is taken; one more turn before does not count.
    folder : Path
        An empty folder.
    """
    paths = [str(path.resolve()) for path in (pair.base, pair.fine, pair.laid_out, folder)]
    run_measured([pair.name, codes, str(turns), *paths], folder, module="benchmarks.exact.speed_worker")
    return SpeedRow(pair.name, json.loads((folder / "seconds.json").read_text()))


def main(argv: Sequence[str]) -> int:
    """Measure; the arguments are those of `measure_speed`."""
    name, codes, turns = argv[:3]
    base, fine, laid_out, folder = map(Path, argv[3:])
    stay_on_one_core()
    torch.set_num_threads(1)
    seconds = _times(_ways(Pair(name, base, fine, laid_out), codes, folder), int(turns))
    (folder / "seconds.json").write_text(json.dumps(seconds))
    return 0


_Work = Callable[[], object]
_Ways = dict[str, tuple[_Work, _Work]]
"""What clears the place of a way, and its work."""


def _ways(pair: Pair, codes: str, folder: Path) -> _Ways:
    out = folder / "decoded.safetensors"
    coded = CODES[codes]
    places = {scheme.name: folder / str(number) for number, scheme in enumerate((NO_CODES, FAST, coded))}
    _clear(places[coded.name])
    coded.encode(pair, folder, places[coded.name])
    ways: _Ways = {}
    remove = partial(out.unlink, missing_ok=True)
    for scheme, encode, decode in ((NO_CODES, ENCODE, DECODE), (FAST, FAST_ENCODE, FAST_DECODE)):
        place = places[scheme.name]
        ways[encode] = partial(_clear, place), partial(scheme.encode, pair, folder, place)
        ways[decode] = remove, partial(scheme.decode, pair, folder, place, out)
    place = places[coded.name]
    ways[CODED_DECODE] = remove, partial(coded.decode, pair, folder, place, out)
    ways[LOSSY_DECODE] = remove, partial(coded.decode_lossy, pair, folder, place, out)
    return ways


def _clear(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def _times(ways: _Ways, turns: int) -> dict[str, float]:
    least = dict.fromkeys(ways, float("inf"))
    for turn in range(turns + 1):
        for name, (clear, work) in ways.items():
            clear()
            start = time.perf_counter()
            work()
            if turn:
                least[name] = min(least[name], time.perf_counter() - start)
    return least


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
