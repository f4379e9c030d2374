"""What was measured, as a page."""

import math
from collections.abc import Iterable, Mapping, Sequence

from benchmarks.codes.errors import ErrorPoint
from benchmarks.codes.offers import OFFERS, TODAY, offer_of
from benchmarks.codes.points import Point
from benchmarks.common.environment import environment
from benchmarks.common.markdown import markdown_table


def codes_page(errors: Sequence[ErrorPoint], points: Sequence[Point], seconds: Mapping[str, float]) -> str:
    """Return the page of what was measured, with the error of each code for a normal variable.

    Parameters
    ----------
    errors : sequence of ErrorPoint
        Squared errors at equal bytes.
    points : sequence of Point
        Behaviour at equal bytes.
    seconds : mapping of str to float
        See `decode_seconds`.
    """
    about = environment()
    where = (
        f"{about['date']}: {about['machine']['processor']}, {about['machine']['cores']} cores, "
        f"torch {about['versions']['torch']}, Python {about['versions']['python']}."
    )
    parts = ["# Codes for singular vectors", where, _distortions()]
    parts += [_errors(errors, name) for name in sorted({point.benchmark for point in errors})]
    parts += [_behaviour(points, name) for name in sorted({point.benchmark for point in points})]
    return "\n\n".join([*parts, _times(seconds)])


def _distortions() -> str:
    """Return the squared error of each code for a normal variable, with its bound."""
    rows = {}
    for name in OFFERS:
        for code in offer_of(name).codes:
            if code.bits <= 2:
                rows[code.name] = [code.name, f"{code.bits:.2f}", f"{code.distortion:.4f}", f"{4**-code.bits:.4f}"]
    head = ["code", "bits", "squared error", "bound"]
    return "## A normal variable of unit variance\n\n" + markdown_table(head, rows.values())


def _errors(points: Sequence[ErrorPoint], benchmark: str) -> str:
    """Return relative errors by offer and size, and the bytes that each needs for the same error as today's codes."""
    chosen = {(point.size, point.offer): point for point in points if point.benchmark == benchmark}
    sizes = _ascending({size for size, _ in chosen})
    rows = [
        [offer, *(f"{chosen[size, offer].error:.4f}, {chosen[size, offer].bytes_ratio:.3f}" for size in sizes)]
        for offer in OFFERS
        if all((size, offer) in chosen for size in sizes)
    ]
    title = f"## {benchmark.capitalize()}: relative error; bytes for the same error"
    return f"{title}\n\n{markdown_table(['offer', *sizes], rows)}"


def _ascending(sizes: Iterable[str]) -> list[str]:
    return sorted(sizes, key=lambda size: float(size.rstrip("%")))


def _behaviour(points: Sequence[Point], benchmark: str) -> str:
    """Return KL by offer and size, and its ratio to that of today's codes: geometric means over tasks."""
    chosen = [point for point in points if point.benchmark == benchmark]
    sizes = _ascending({point.size for point in chosen})
    today = {(point.task, point.size): point for point in chosen if point.offer == TODAY}
    rows = []
    for offer in OFFERS:
        cells = []
        for size in sizes:
            same = [point for point in chosen if (point.offer, point.size) == (offer, size)]
            same = [point for point in same if (point.task, size) in today]
            cells.append(_cell(same, [today[point.task, size] for point in same]))
        if any(cells):
            rows.append([offer, *cells])
    tasks = ", ".join(sorted({point.task for point in chosen}))
    head = ["offer", *sizes]
    return f"## {benchmark.capitalize()}: KL, its ratio to four groups, squared error's ratio ({tasks})\n\n" + (
        markdown_table(head, rows)
    )


def _cell(points: Sequence[Point], today: Sequence[Point]) -> str:
    if not points:
        return ""
    pairs = list(zip(points, today, strict=True))
    kl = _mean([point.kl for point in points])
    ratio = _mean([point.kl / other.kl for point, other in pairs])
    error = _mean([(point.error / other.error) ** 2 for point, other in pairs])
    return f"{kl:.5f}, {ratio:.2f}, {error:.3f}"


def _mean(values: Sequence[float]) -> float:
    """Return the geometric mean."""
    return math.exp(sum(map(math.log, values)) / len(values))


def _times(seconds: Mapping[str, float]) -> str:
    rows = [[name, f"{1000 * each:.2f} ms"] for name, each in seconds.items()]
    return "## A matrix of 4096 x 4096 at rank 82, one thread\n\n" + markdown_table(["what", "time"], rows)
