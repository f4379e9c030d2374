"""What the codec is to hold on language models, and whether it does."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict

from benchmarks.common.markdown import percent
from benchmarks.language.bench import BEST, CALIBRATED, PAPER, unrounded
from benchmarks.language.plans import AT_PAPERS, DEFAULT, HALF, PAPER_RANK
from benchmarks.language.points import Point
from benchmarks.language.summary import Measured, ratio_of_settings

LEAST_RATIOS = {BEST: 6, CALIBRATED: 15}
"""By how much the KL of `paper` is to exceed that of `best` at the same bytes."""
CALIBRATION_GAIN = 3
"""By how much the KL of the default size is to exceed that of the same size, calibrated."""
AGREEMENT = {"german": 0.9}
"""Least agreement of calibrated packs of 0.5 %, where it is not `ORDINARY_AGREEMENT`: the base hardly knows German."""
ORDINARY_AGREEMENT = 0.95
EXACT_MATCH_LOSS = 0.02
"""Most of the exact match that a calibrated pack of 0.5 % may lose."""
STANDARD_ERRORS = 2
"""A peer that is better by more than so many standard errors is better."""
MINUTES = 30
"""Longest time of a point."""


class Promise(TypedDict):
    """A line of the table: what is to hold, what was measured, and whether it holds."""

    text: str
    measured: str
    holds: bool


def promises(measured: Measured, peers: Mapping[str, Mapping[str, Any]]) -> list[Promise]:
    """Return those promises of which everything has been measured.

    Parameters
    ----------
    measured : Measured
        All points.
    peers : mapping
        See `benchmarks.language.summary.against_peers`.
    """
    return [
        *_against_paper(measured),
        *_calibration(measured),
        *_agreement(measured),
        *_exact_match(measured),
        *_peers(peers),
        *_time(measured.points),
    ]


def _against_paper(measured: Measured) -> Iterator[Promise]:
    for method, least in LEAST_RATIOS.items():
        pairs = ((PAPER, method, False), (unrounded(PAPER), unrounded(method), True))
        found, exact = (
            ratio_of_settings(
                measured.all_tasks(theirs, PAPER_RANK, few=few), measured.all_tasks(ours, AT_PAPERS, few=few)
            )
            for theirs, ours, few in pairs
        )
        if found and exact:
            yield {
                "text": f"At the bytes of `paper --rank 0.1`, its KL is {least} times that of {_named(method)}.",
                "measured": f"{found.ratio:.1f} times; {exact.ratio:.1f} times without rounding to bf16",
                "holds": found.ratio >= least,
            }


def _calibration(measured: Measured) -> Iterator[Promise]:
    plain, fitted = (measured.all_tasks(method, DEFAULT) for method in (BEST, CALIBRATED))
    if found := ratio_of_settings(plain, fitted):
        yield {
            "text": f"At the default size calibration divides the KL by at least {CALIBRATION_GAIN}.",
            "measured": f"by {found.ratio:.1f}",
            "holds": found.ratio >= CALIBRATION_GAIN,
        }


def _agreement(measured: Measured) -> Iterator[Promise]:
    points = measured.all_tasks(CALIBRATED, HALF)
    if points:
        least = {point.task: AGREEMENT.get(point.task, ORDINARY_AGREEMENT) for point in points}
        exceptions = "".join(f", {percent(share, 0)} on {task}" for task, share in AGREEMENT.items())
        yield {
            "text": f"Calibrated packs of 0.5 % agree on {percent(ORDINARY_AGREEMENT, 0)} of next tokens{exceptions}.",
            "measured": ", ".join(f"{point.task} {percent(point.agreement)}" for point in points),
            "holds": all(point.agreement >= least[point.task] for point in points),
        }


def _exact_match(measured: Measured) -> Iterator[Promise]:
    fine, point = (measured.one("exercises", *names) for names in (("fine-tune",), (CALIBRATED, HALF)))
    if fine and point and fine.exact_match is not None and point.exact_match is not None:
        yield {
            "text": f"Their exact match is within {100 * EXACT_MATCH_LOSS:.0f} points of the fine-tune's.",
            "measured": f"{percent(point.exact_match)}, fine-tune {percent(fine.exact_match)}, {point.prompts} prompts",
            "holds": point.exact_match >= fine.exact_match - EXACT_MATCH_LOSS,
        }


def _peers(peers: Mapping[str, Mapping[str, Any]]) -> Iterator[Promise]:
    for is_calibrated, kind in ((False, "data-free"), (True, "calibrated")):
        rows = {
            name: row["lowest"] for name, row in peers.items() if row["calibrated"] == is_calibrated and row["lowest"]
        }
        if rows:
            lowest = min(rows, key=lambda name: rows[name]["errors"])
            row = rows[lowest]
            better = sorted(name for name, row in rows.items() if row["errors"] < -STANDARD_ERRORS)
            yield {
                "text": f"No {kind} peer has a KL lower than that of `best` by more than {STANDARD_ERRORS} standard "
                "errors between 0.05 % and 8 %.",
                "measured": f"nearest: {lowest}, {row['ratio']:.2f} times at {percent(row['share'], 2)} "
                f"({row['errors']:+.1f} standard errors)" + (f"; better: {', '.join(better)}" if better else ""),
                "holds": not better,
            }


def _time(points: Sequence[Point]) -> Iterator[Promise]:
    if not points:
        return
    longest = max(points, key=lambda point: point.seconds)
    yield {
        "text": f"No point takes more than {MINUTES} minutes of one core.",
        "measured": f"{longest.seconds / 60:.1f} minutes ({longest.method} {longest.setting}, {longest.task})",
        "holds": longest.seconds <= 60 * MINUTES,
    }


def _named(method: str) -> str:
    return "`best`" + method.removeprefix("best")
