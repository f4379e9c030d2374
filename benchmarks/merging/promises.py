"""The claims that the benchmark checks, and whether they hold."""

from collections.abc import Iterator

from benchmarks.merging import bases, calibration, dts, esm, routing, unseen
from benchmarks.merging.bench import FOUR
from benchmarks.merging.packs import PRETRAINED
from benchmarks.merging.rows import Rows

POINT = 0.01
LARGEST_DIRECTORY = 1.05
LARGEST_KL = 0.7


def promises(rows: Rows) -> list[str]:
    """A line for each promise that has been measured."""
    return [*_three(rows), *_unseen(rows), *_calibrated(rows), *_esm(rows), *_routing(rows)]


def verdict(holds: bool) -> str:
    """In one word.

    >>> verdict(True), verdict(False)
    ('holds', 'does **not** hold')
    """
    return "holds" if holds else "does **not** hold"


def _three(rows: Rows) -> Iterator[str]:
    size = dts.SIZES[0]
    if not rows.has(dts.PART, dts.DIRECTORY, size, "", *dts.THREE) or not rows.has(dts.PART, PRETRAINED, size, *FOUR):
        return
    lost = [
        rows.figures(dts.PART, PRETRAINED, size, task)["accuracy"]
        - rows.figures(dts.PART, dts.DIRECTORY, size, task)["accuracy"]
        for task in dts.THREE
    ]
    sizes = rows.figures(dts.PART, dts.DIRECTORY, size, "")
    ratio = (sizes["directory"] - sizes["packs"]) / sizes["plain_base"]
    yield (
        f"Three fine-tunes without a pre-trained base, each at most 1 point below `best` against that base at {size}: "
        f"{verdict(max(lost) <= POINT + 1e-9)} ({', '.join(f'{-100 * value:+.2f}' for value in lost)} points)."
    )
    yield f"The directory is at most 1.05 bases plus packs: {verdict(ratio <= LARGEST_DIRECTORY)} ({ratio:.3f} bases)."


def _unseen(rows: Rows) -> Iterator[str]:
    """By the one way that chooses all there is to choose on the seen tasks; others are shown beside it."""
    way = unseen.LENT
    if not rows.has(unseen.PART, unseen.PLAIN, "", *FOUR) or not rows.has(unseen.PART, unseen.FUSED, way, *FOUR):
        return
    ours = rows.mean(unseen.PART, unseen.FUSED, way, FOUR, "accuracy")
    base, plain = (rows.mean(unseen.PART, name, "", FOUR, "accuracy") for name in (unseen.BASE, unseen.PLAIN))
    yield (
        "Fusion for a domain that was left out beats the base encoder and the plain average, all with the fine-tune's "
        f"head: {verdict(ours > max(base, plain))} ({way}: {100 * ours:.2f} %; base {100 * base:.2f} %, average "
        f"{100 * plain:.2f} %)."
    )


def _calibrated(rows: Rows) -> Iterator[str]:
    for size in calibration.SIZES:
        setting = calibration.setting(size, calibration.TEXTS)
        if not rows.has(calibration.PART, calibration.FITTED, setting, *FOUR):
            continue
        plain = rows.mean(calibration.PART, calibration.PLAIN, size, FOUR, "kl")
        fitted = rows.mean(calibration.PART, calibration.FITTED, setting, FOUR, "kl") / plain
        yield (
            f"Packs of {size} that were fitted to 64 texts have at most 0.7 times the KL of plain ones: "
            f"{verdict(fitted <= LARGEST_KL)} ({fitted:.2f})."
        )


def _esm(rows: Rows) -> Iterator[str]:
    if not rows.has(esm.PART, "ESM", bases.SEARCHED, *FOUR):
        return
    ours = rows.mean(esm.PART, "ESM", bases.SEARCHED, FOUR, "accuracy")
    rivals = {
        name: rows.mean(bases.PART, name, setting, FOUR, "accuracy")
        for name, setting in (
            ("average", bases.DEFAULT),
            ("task arithmetic", bases.SEARCHED),
            ("TIES", bases.SEARCHED),
        )
        if rows.has(bases.PART, name, setting, *FOUR)
    }
    told = ", ".join(f"{name} {100 * value:.2f} %" for name, value in rivals.items())
    holds = verdict(ours > max(rivals.values()))
    yield (f"ESM beats average, task arithmetic and TIES: {holds} ({100 * ours:.2f} %; {told}).")


def _routing(rows: Rows) -> Iterator[str]:
    if not rows.has(esm.PART, "ESM", bases.SEARCHED, *FOUR):
        return
    base = rows.mean(esm.PART, "ESM", bases.SEARCHED, FOUR, "accuracy")
    best = rows.mean(bases.PART, "fine-tune", bases.DEFAULT, FOUR, "accuracy")
    plain = rows.mean(bases.PART, "average", bases.DEFAULT, FOUR, "accuracy")
    for size in routing.SIZES:
        ways = [way for way in routing.WAYS[1:] if rows.has(routing.PART, way, size, *FOUR)]
        found = {way: rows.mean(routing.PART, way, size, FOUR, "accuracy") for way in ways}
        told = ", ".join(
            f"{way} {100 * value:.2f} %, {(value - base) / (best - base):.2f}" for way, value in found.items()
        )
        if found:
            holds = verdict(max(found.values()) - base >= (best - base) / 2)
            yield (
                f"ESM++ with packs of {size} recovers at least half of what is left from ESM ({100 * base:.2f} %) "
                f"to the fine-tunes ({100 * best:.2f} %): {holds} ({told}). "
                f"Of what is left from the average ({100 * plain:.2f} %) the best way recovers "
                f"{(max(found.values()) - plain) / (best - plain):.2f}."
            )
