"""Everything that a plan asks for; what has been measured with this code is kept, and an interrupted run goes on."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common.json_lines import append_record, read_records
from benchmarks.common.run_log import RunLog
from benchmarks.exact.curve import CurvePoint, curve_points
from benchmarks.exact.dts import CODES
from benchmarks.exact.measure import Row, measure, memory_of_torch
from benchmarks.exact.pair import Pair
from benchmarks.exact.pairs import demo_pairs, language_pairs
from benchmarks.exact.peers.packages import install_peers
from benchmarks.exact.plans import Plan
from benchmarks.exact.schemes import SCHEMES
from benchmarks.exact.series_stores import STORES
from benchmarks.exact.series_worker import SeriesRow, measure_series
from benchmarks.exact.speed_worker import SpeedRow, measure_speed
from benchmarks.exact.training_run import train
from benchmarks.language.code_version import ENCODER, ROOT, code_version

CODE = (*ENCODER, *(ROOT / "dtscodec" / room for room in ("checkpoints", "decoding", "format", "packs", "series")))
"""Code that decides on bytes and times."""


@dataclass(frozen=True, slots=True)
class Records:
    """What has been measured, in files of a folder."""

    folder: Path

    @property
    def rows(self) -> list[Row]:
        """Schemes on pairs."""
        return read_records(self.folder / "rows.jsonl", Row)

    @property
    def speed(self) -> list[SpeedRow]:
        """Times that are compared with each other."""
        return read_records(self.folder / "speed.jsonl", SpeedRow)

    @property
    def series(self) -> list[SeriesRow]:
        """Stores on runs."""
        return read_records(self.folder / "series.jsonl", SeriesRow)

    @property
    def curve(self) -> list[CurvePoint]:
        """Lossy packs."""
        return read_records(self.folder / "curve.jsonl", CurvePoint)


class Bench:
    """A plan, its caches and its records.

    Parameters
    ----------
    plan : Plan
        What is measured.
    demo_cache, language_cache : Path
        As of `benchmarks.demo` and `benchmarks.language`.
    cache : Path
        Folder of records, packages and temporary files.
    """

    def __init__(self, plan: Plan, demo_cache: Path, language_cache: Path, cache: Path) -> None:
        self.plan = plan
        self._demo, self._language = demo_cache, language_cache
        self._scratch = cache / "scratch"
        self._pairs_folder = cache / "pairs" / plan.name  # Fine-tunes of different plans may have one name.
        self.records = Records(cache / f"{plan.name}-{code_version(CODE)}")
        for folder in (self._scratch, self.records.folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._log = RunLog(self.records.folder / "run.log", f"benchmarks.exact, {plan.name}")
        self._packages, self.missing = install_peers(cache)

    def run(self) -> None:
        """Measure what is missing."""
        self._nothing = memory_of_torch(self._scratch)
        for pair in self._pairs():
            self._measure(pair)
            self._time(pair)
        for pair in self._curve_pairs():
            self._draw(pair)
        for run in self.plan.runs:
            train(run, self._language)
            known = {(row.run, row.store) for row in self.records.series}
            for name, store in STORES.items():
                if (run.name, name) not in known and store.package not in self.missing:
                    self._log.say(f"{run.name}: {name}")
                    out = self.records.folder / "series.jsonl"
                    measure_series(run, name, self._language, self._packages, self._scratch, out)

    def _pairs(self) -> Iterator[Pair]:
        if self.plan.demo:
            yield from demo_pairs(self._demo, self._pairs_folder)
        yield from language_pairs((*self.plan.tasks, *self.plan.others), self._language, self._pairs_folder)

    def _curve_pairs(self) -> Iterator[Pair]:
        """Yield the pairs that have a curve: the demo's, and the first of the language model."""
        if self.plan.demo:
            yield from demo_pairs(self._demo, self._pairs_folder)
        yield from language_pairs(self.plan.tasks[:1], self._language, self._pairs_folder)

    def _measure(self, pair: Pair) -> None:
        known = {(row.pair, row.scheme) for row in self.records.rows}
        others = {scheme.name for size, scheme in CODES.items() if size != self.plan.codes}
        for name, scheme in SCHEMES.items():
            if name in others:
                continue
            if (pair.name, name) not in known and scheme.package not in self.missing:
                self._log.say(f"{pair.name}: {name}")
                row = measure(pair, scheme, self._packages, self.plan.repeats, self._nothing, self._scratch)
                append_record(self.records.folder / "rows.jsonl", row)

    def _time(self, pair: Pair) -> None:
        if pair.name not in {row.pair for row in self.records.speed}:
            self._log.say(f"{pair.name}: times in turn")
            with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
                row = measure_speed(pair, self.plan.codes, self.plan.repeats, Path(folder))
            append_record(self.records.folder / "speed.jsonl", row)

    def _draw(self, pair: Pair) -> None:
        known = {(point.pair, point.size) for point in self.records.curve}
        sizes = [size for size in self.plan.sizes if (pair.name, size) not in known]
        for point in curve_points(pair, sizes, self._scratch):
            self._log.say(f"{pair.name}: lossy, {point.size}")
            append_record(self.records.folder / "curve.jsonl", point)
