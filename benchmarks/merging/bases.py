"""Part `bases`: each merged base alone, with every task's own head, at its default alpha and at the best one found."""

from collections.abc import Sequence
from functools import partial

from benchmarks.merging.bench import ALL, FOUR, Bench, State
from benchmarks.merging.log import Row
from benchmarks.merging.merges import (
    ARITHMETIC,
    AVERAGE,
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

PART, SEVEN = "bases", "seven"
DEFAULT, SEARCHED = "default", "searched"
FEW = (AVERAGE, ARITHMETIC, TIES, TSV_M)
"""Those that all seven tasks are merged by."""


def run(bench: Bench) -> None:
    """All methods on the four tasks."""
    ends(bench, PART, FOUR)
    for merge in SHARED:
        judge(bench, PART, FOUR, merge)


def run_seven(bench: Bench) -> None:
    """Part `seven`: the four tasks, and three whose texts are from all domains and whose classes are others."""
    ends(bench, SEVEN, ALL)
    for merge in FEW:
        judge(bench, SEVEN, ALL, merge)


def ends(bench: Bench, part: str, tasks: Sequence[str]) -> None:
    """What merging is between: the pre-trained encoder with each head, and each fine-tune."""
    for task in tasks:
        bench.row(part, "pre-trained", DEFAULT, task, partial(_alone, bench, task, bench.encoder))
        bench.row(part, "fine-tune", DEFAULT, task, partial(_alone, bench, task, bench.fine(task)))


def _alone(bench: Bench, task: str, encoder: State) -> tuple[State, dict[str, float]]:
    return bench.with_head(encoder, task), {}


def judge(bench: Bench, part: str, tasks: Sequence[str], merge: Merge) -> None:
    """One method: at its default alpha, and at the one that serves held-out training texts best."""
    if bench.log.has(part, merge.name, SEARCHED if merge.alpha else DEFAULT, *tasks):
        return
    tensors = load(merged(bench, tasks, merge))
    _rows(bench, part, merge.name, DEFAULT, tasks, tensors, merge.alpha)
    if merge.alpha is not None:
        alpha = _alpha(bench, part, merge, tasks, tensors)
        _rows(bench, part, merge.name, SEARCHED, tasks, at_alpha(bench, tensors, alpha / merge.alpha), alpha)


def _alpha(bench: Bench, part: str, merge: Merge, tasks: Sequence[str], tensors: State) -> float:
    """The alpha found, which is logged too, since searching takes longer than judging."""
    if not bench.log.has(part, merge.name, SEARCHED, ""):
        assert merge.alpha is not None
        found = search_alpha(bench, tasks, tensors, merge.alpha)
        bench.log.put(Row(part, merge.name, SEARCHED, "", {"alpha": found}))
    return bench.log.figures(part, merge.name, SEARCHED, "")["alpha"]


def _rows(
    bench: Bench, part: str, name: str, setting: str, tasks: Sequence[str], tensors: State, alpha: float | None
) -> None:
    for task in tasks:
        bench.row(part, name, setting, task, partial(_merged, bench, task, tensors, alpha))


def _merged(bench: Bench, task: str, tensors: State, alpha: float | None) -> tuple[State, dict[str, float]]:
    others = {"distance": distance_ratio(bench, tensors, task)}
    return bench.with_head(tensors, task), others | ({} if alpha is None else {"alpha": alpha})
