"""Part `bases`: each merged base alone, with every task's own head, at its default alpha and at the best one found."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.merging.bench import ACROSS, ALL, FOUR, MergingBench, State
from benchmarks.merging.merges import (
    ARITHMETIC,
    AVERAGE,
    ESM,
    SHARED,
    TIES,
    TSV_M,
    Merge,
    at_alpha,
    distance_ratio,
    load,
    merged,
    search_alpha,
)
from benchmarks.merging.packs import PRETRAINED, decoded, pack
from benchmarks.merging.rows import Row

PART, SEVEN, SIZE = "bases", "seven", "0.25%"
DEFAULT, SEARCHED = "default", "searched"
FEW = (AVERAGE, ARITHMETIC, TIES, TSV_M, ESM)
"""Those that all seven tasks are merged by."""
PACKED = "packs against the "
"""Before a base's name: how the log calls packs of the three other tasks."""


def run(bench: MergingBench) -> None:
    """All methods on the four tasks."""
    ends(bench, PART, FOUR)
    for merge in SHARED:
        judge(bench, PART, FOUR, merge)


def run_seven(bench: MergingBench) -> None:
    """Part `seven`: the four tasks, and three whose texts are from all domains and whose classes are others."""
    ends(bench, SEVEN, ALL)
    for merge in FEW:
        judge(bench, SEVEN, ALL, merge)
    places = {PRETRAINED: bench.base, AVERAGE.name: merged(bench, ALL, AVERAGE)}
    for base, place in places.items():
        for task in ACROSS:
            name = base if base == PRETRAINED else f"{base} of seven"
            bench.row(SEVEN, f"{PACKED}{base}", SIZE, task, partial(_packed, bench, task, name, place))


def _packed(bench: MergingBench, task: str, name: str, place: Path) -> tuple[State, dict[str, float]]:
    return decoded(pack(bench, task, name, place, SIZE), place)


def ends(bench: MergingBench, part: str, tasks: Sequence[str]) -> None:
    """Judge the two ends of the scale: the pre-trained encoder with each head, and each fine-tune."""
    for task in tasks:
        bench.row(part, "pre-trained", DEFAULT, task, partial(_alone, bench, task, bench.encoder))
        bench.row(part, "fine-tune", DEFAULT, task, partial(_alone, bench, task, bench.fine(task)))


def _alone(bench: MergingBench, task: str, encoder: State) -> tuple[State, dict[str, float]]:
    return bench.with_head(encoder, task), {}


def judge(bench: MergingBench, part: str, tasks: Sequence[str], merge: Merge) -> None:
    """One method: at its default alpha, and at the one that serves held-out training texts best."""
    if bench.log.has(part, merge.name, SEARCHED if merge.alpha else DEFAULT, *tasks):
        return
    tensors = load(merged(bench, tasks, merge))
    _rows(bench, part, merge.name, DEFAULT, tasks, tensors, merge.alpha)
    if merge.alpha is not None:
        alpha = _alpha(bench, part, merge, tasks, tensors)
        _rows(bench, part, merge.name, SEARCHED, tasks, at_alpha(bench, tensors, merge, alpha), alpha)


def _alpha(bench: MergingBench, part: str, merge: Merge, tasks: Sequence[str], tensors: State) -> float:
    """The alpha found, which is logged too, since searching takes longer than judging."""
    if not bench.log.has(part, merge.name, SEARCHED, ""):
        found = search_alpha(bench, tasks, tensors, merge)
        bench.log.put(Row(part, merge.name, SEARCHED, "", {"alpha": found}))
    return bench.log.figures(part, merge.name, SEARCHED, "")["alpha"]


def _rows(
    bench: MergingBench, part: str, name: str, setting: str, tasks: Sequence[str], tensors: State, alpha: float | None
) -> None:
    for task in tasks:
        bench.row(part, name, setting, task, partial(_merged, bench, task, tensors, alpha))


def _merged(bench: MergingBench, task: str, tensors: State, alpha: float | None) -> tuple[State, dict[str, float]]:
    others = {"distance": distance_ratio(bench, tensors, task)}
    return bench.with_head(tensors, task), others | ({} if alpha is None else {"alpha": alpha})
