"""What is to hold, and whether it does."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.exact.dts import OURS, SEARCHED
from benchmarks.exact.measure import Row
from benchmarks.exact.peers.moonclip_store import MoonclipDefault
from benchmarks.exact.plans import STEPS
from benchmarks.exact.schemes import FAST, PEERS
from benchmarks.exact.series import PlanesLinks
from benchmarks.exact.series_stores import OUR_STORES
from benchmarks.exact.series_worker import SeriesRow
from benchmarks.exact.speed_worker import (
    CODED_DECODE,
    DECODE,
    ENCODE,
    FAST_DECODE,
    FAST_ENCODE,
    LOSSY_DECODE,
    SpeedRow,
)

BF16, MEAN, FP32, STEP = 0.70, 0.75, 0.84, 0.014
"""Most bytes: by those of the best peer, and by the checkpoint's for steps at a small learning rate."""
LINKS, STORE = 0.75, 0.5
"""Most bytes of a series: by those of links of `FAST`'s kind, and by those of moonclip."""
TIMES, AIM = 3.0, 1.5
"""Most time by that of `FAST`, and what is aimed at."""
TENSORS, ALLOWANCE = 6, 200_000_000
"""Most memory: so many times the largest tensor, and so many bytes."""
LEEWAY = 1.05
"""Times are equal within this factor."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A sentence, what was measured, and whether it holds."""

    text: str
    measured: str
    holds: bool


def bars(
    rows: Sequence[Row], speed: Sequence[SpeedRow], series: Sequence[SeriesRow], tasks: Sequence[str]
) -> list[Bar]:
    """Return what the rows tell; bars without rows are left out.

    Parameters
    ----------
    rows : sequence of Row
        All pairs and schemes.
    speed : sequence of SpeedRow
        Times that are compared.
    series : sequence of SeriesRow
        All runs and stores.
    tasks : sequence of str
        Names of the pairs of the geometric mean.
    """
    table = {(row.pair, row.scheme): row for row in rows}
    return [*_sizes(table, tasks), *_steps(series), *_series(series), *_speed(speed), *_memory(rows), *_codes(speed)]


_Table = dict[tuple[str, str], Row]


def against_best(rows: Iterable[Row], pair: str) -> tuple[float, str] | None:
    """Return our bytes by those of the best peer, and the peer; None if one of them was not measured."""
    own = [row for row in rows if row.pair == pair]
    ours = [row.bytes for row in own if row.scheme == SEARCHED.name]
    peers = [(row.bytes, row.scheme) for row in own if row.scheme in {peer.name for peer in PEERS}]
    if not ours or not peers:
        return None
    best, name = min(peers)
    return ours[0] / best, name


def _sizes(table: _Table, tasks: Sequence[str]) -> Iterable[Bar]:
    for pair, most in (("demo bf16", BF16), ("demo fp32", FP32)):
        if found := against_best(table.values(), pair):
            text = f"{pair}: at most {most:.2f} times the bytes of the best peer"
            yield Bar(text, f"{found[0]:.3f} ({found[1]})", found[0] <= most)
    ratios = [found[0] for task in tasks if (found := against_best(table.values(), task))]
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        text = f"language fine-tunes: at most {MEAN:.2f} times the bytes of the best peer, geometric mean"
        yield Bar(text, f"{mean:.3f} (of {len(ratios)}; worst {max(ratios):.3f})", mean <= MEAN)


def _steps(series: Sequence[SeriesRow]) -> Iterable[Bar]:
    ours = {store.name for store in OUR_STORES}
    shares = [row.share for row in series if row.store in ours and row.run == STEPS]
    if shares:
        text = f"steps at a learning rate of 1e-6: at most {STEP:.1%} of the checkpoint, mean"
        yield Bar(text, f"{min(shares):.2%}", min(shares) <= STEP)


def _series(series: Sequence[SeriesRow]) -> Iterable[Bar]:
    table = {(row.run, row.store): sum(row.sizes) for row in series}
    for run in dict.fromkeys(row.run for row in series):
        ours = min((table[run, store.name] for store in OUR_STORES if (run, store.name) in table), default=0)
        for peer, most in ((PlanesLinks.name, LINKS), (MoonclipDefault.name, STORE)):
            if ours and (run, peer) in table:
                ratio = ours / table[run, peer]
                yield Bar(f"{run}: at most {most:.2f} times the bytes of {peer}", f"{ratio:.3f}", ratio <= most)


def _speed(speed: Sequence[SpeedRow]) -> Iterable[Bar]:
    for what, ours, fast in (("encode", ENCODE, FAST_ENCODE), ("decode", DECODE, FAST_DECODE)):
        ratios = {row.pair: row.seconds[ours] / row.seconds[fast] for row in speed}
        if ratios:
            worst = max(ratios, key=lambda pair: ratios[pair])
            text = f"{what} without codes: at most {TIMES:g} times the time of {FAST.name} (aim {AIM:g})"
            least = min(ratios.values())
            yield Bar(text, f"{least:.1f} to {ratios[worst]:.1f} ({worst})", ratios[worst] <= TIMES)


def _memory(rows: Sequence[Row]) -> Iterable[Bar]:
    names = {scheme.name for scheme in OURS}
    shares = [
        (max(row.encode_memory, row.decode_memory) / (TENSORS * row.largest + ALLOWANCE), row)
        for row in rows
        if row.scheme in names
    ]
    if shares:
        share, row = max(shares, key=lambda pair: pair[0])
        text = f"memory: at most {TENSORS} times the largest tensor + {ALLOWANCE / 1e6:.0f} MB beyond torch"
        yield Bar(text, f"{share:.2f} of that ({row.pair}, {row.scheme})", share <= 1)


def _codes(speed: Sequence[SpeedRow]) -> Iterable[Bar]:
    ratios = {row.pair: row.seconds[CODED_DECODE] / (row.seconds[LOSSY_DECODE] + row.seconds[DECODE]) for row in speed}
    if ratios:
        worst = max(ratios, key=lambda pair: ratios[pair])
        text = "decode with codes: at most its lossy decode and a decode without codes together"
        yield Bar(text, f"{ratios[worst]:.2f} of that ({worst})", ratios[worst] <= LEEWAY)
