"""A series of saves in one store, in a process of its own on one core: ``python -m benchmarks.exact.series_worker``."""

import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from benchmarks.common.json_lines import append_record
from benchmarks.common.process_usage import ENVIRONMENT
from benchmarks.exact.equality import what_is_equal
from benchmarks.exact.plans import PLANS
from benchmarks.exact.series_stores import STORES
from benchmarks.exact.training_run import TrainingRun, base_file, saved_files
from benchmarks.exact.worker import stay_on_one_core


@dataclass(frozen=True, slots=True)
class SeriesRow:
    """Figures of a store on the saves of a run.

    Parameters
    ----------
    run, store, setting : str
        What was measured.
    raw, weights : int
        Bytes and weights of a save.
    sizes : list of int
        Bytes that each save added to the store; the base is not counted.
    add : float
        Mean seconds of storing a save, on one core.
    restore : float
        Seconds of restoring the last save from the base and the store.
    checked : list of int
        Numbers of the saves that were restored and compared.
    equal : {"file", "tensors"}
        What came back equal.
    """

    run: str
    store: str
    setting: str
    raw: int
    weights: int
    sizes: list[int]
    add: float
    restore: float
    checked: list[int]
    equal: str

    @property
    def share(self) -> float:
        """Mean bytes of a save by those of the file."""
        return sum(self.sizes) / len(self.sizes) / self.raw


def measure_series(run: TrainingRun, store: str, cache: Path, packages: Path, scratch: Path, out: Path) -> None:
    """Measure a store in a process of its own, which appends a `SeriesRow` to a file.

    Parameters
    ----------
    run : TrainingRun
        A run of a plan, trained.
    store : str
        One of `benchmarks.exact.series_stores.STORES`.
    cache : Path
        As of `benchmarks.language`.
    packages : Path
        Folder of the peers' packages.
    scratch : Path
        Folder for temporary files.
    out : Path
        File of records.

    Raises
    ------
    SystemExit
        The store fails, or what comes back is not what was saved.
    """
    (plan,) = (plan.name for plan in PLANS.values() if run in plan.runs)
    paths = [str(path.resolve()) for path in (cache, packages, scratch, out)]
    command = [sys.executable, "-m", "benchmarks.exact.series_worker", plan, run.name, store, *paths]
    if subprocess.run(command, env=ENVIRONMENT).returncode != 0:
        raise SystemExit(f"{run.name}, {store}: expected exit code 0")


def main(argv: Sequence[str]) -> int:
    """Measure; the arguments are those of `measure_series`."""
    plan, run_name, store = argv[:3]
    cache, packages, scratch, out = map(Path, argv[3:])
    stay_on_one_core()
    sys.path.append(str(packages))
    (run,) = (run for run in PLANS[plan].runs if run.name == run_name)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        append_record(out, _row(run, store, cache, Path(folder)))
    return 0


def _row(run: TrainingRun, name: str, cache: Path, folder: Path) -> SeriesRow:
    places = {part: folder / part for part in ("store", "saves", "checked")}
    for place in places.values():
        place.mkdir()
    previous = base_file(cache)
    store = STORES[name](places["store"], previous)
    store.begin()
    checked = sorted({1, run.saves // 2, run.saves})
    seconds, sizes, before = 0.0, [], store.size()
    for number, save in enumerate(saved_files(run, cache, places["saves"]), start=1):
        start = time.perf_counter()
        store.add(number, previous, save)
        seconds += time.perf_counter() - start
        sizes.append(store.size() - before)
        before, previous = before + sizes[-1], save
        if number in checked:
            shutil.copyfile(save, places["checked"] / str(number))
    equal, restore = _check(name, places, base_file(cache), checked, folder / "restored.safetensors")
    with safe_open(previous, framework="pt") as file:
        weights = sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    raw, setting = previous.stat().st_size, store.setting
    return SeriesRow(run.name, name, setting, raw, weights, sizes, seconds / run.saves, restore, checked, equal)


def _check(name: str, places: dict[str, Path], base: Path, numbers: Sequence[int], out: Path) -> tuple[str, float]:
    """Restore some saves from a store that is opened anew; return what is equal, and the seconds of the last."""
    found, seconds = [], 0.0
    for number in numbers:
        start = time.perf_counter()
        STORES[name](places["store"], base).restore(number, out)
        seconds = time.perf_counter() - start
        equal = what_is_equal(places["checked"] / str(number), out)
        if equal is None:
            raise SystemExit(f"{name}: what was restored is not save {number}")
        found.append(equal)
        out.unlink()
    return max(found), seconds


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
