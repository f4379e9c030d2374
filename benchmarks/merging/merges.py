"""Merged bases as files, and models of them at other alphas."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

import dtscodec
from benchmarks.merging.bench import FOUR, HEAD, MergingBench, State
from dtscodec.activations.gram_file import GramFile
from dtscodec.calibration.collect import collect
from dtscodec.merging.alpha_search import AlphaSearch, golden_section
from dtscodec.merging.methods.average import Average
from dtscodec.merging.methods.esm import Esm
from dtscodec.merging.methods.iso_c import IsoC
from dtscodec.merging.methods.iso_cts import IsoCts
from dtscodec.merging.methods.method import MergeMethod
from dtscodec.merging.methods.task_arithmetic import TaskArithmetic
from dtscodec.merging.methods.ties import Ties
from dtscodec.merging.methods.tsv_m import TsvM

GRAM_TEXTS = 32
"""Of the texts that fine-tunes were trained on."""


@dataclass(frozen=True, slots=True)
class Merge:
    """A method with its options, and whether it gets Gram matrices of each fine-tune's layers."""

    name: str
    method: MergeMethod
    grams: bool = False

    @property
    def alpha(self) -> float | None:
        """By default; None if the method has none."""
        return self.method.alpha


AVERAGE, ARITHMETIC = Merge("average", Average()), Merge("task arithmetic", TaskArithmetic())
TIES = Merge("TIES", Ties())
TSV_M, ISO_C, ISO_CTS = Merge("TSV-M", TsvM()), Merge("Iso-C", IsoC()), Merge("Iso-CTS", IsoCts())
ESM = Merge("ESM", Esm(), grams=True)
BLIND = Merge("ESM, no inputs", Esm())
AS_FOR_TEXT = {"energy_scaling": True, "task_scaling": False, "dimension_scaling": False, "alpha_everywhere": True}
"""Settings of the authors' code for RoBERTa; the defaults are those of their code for images."""
ABLATIONS = tuple(
    Merge(f"ESM, {name}", replace(Esm(), **options), grams=True)
    for name, options in (
        ("no scaling of tasks", {"task_scaling": False}),
        ("no scaling of dimensions", {"dimension_scaling": False}),
        ("no scaling of layers", {"layer_scaling": False}),
        ("no orthogonalization", {"orthogonal": False}),
        ("with scaling by energy", {"energy_scaling": True}),
        ("alpha everywhere", {"alpha_everywhere": True}),
        ("as for RoBERTa", AS_FOR_TEXT),
    )
)
SHARED = (AVERAGE, ARITHMETIC, TIES, TSV_M, ISO_C, ISO_CTS, BLIND)


def merged(bench: MergingBench, tasks: Sequence[str], merge: Merge) -> Path:
    """The directory of a merged base; made where it is missing. Heads are left to the tasks."""
    path = bench.folder / "merged" / "+".join(tasks) / merge.name.replace(" ", "-")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        dtscodec.merge(
            [bench.directory(task) for task in tasks],
            path,
            merge.method,
            bench.base,
            raw=(f"{HEAD}*",),
            grams=[grams(bench, task) for task in tasks] if merge.grams else (),
        )
    return path


def grams(bench: MergingBench, task: str) -> Path:
    """The file of Gram matrices of a fine-tune on some of the texts that it was trained on."""
    path = bench.folder / "grams" / f"{task}-0-{GRAM_TEXTS}.safetensors"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        collect(bench.directory(task), path, samples=bench.texts_file(task, GRAM_TEXTS, 0))
    return path


def at_alpha(bench: MergingBench, tensors: State, merge: Merge, alpha: float) -> dict[str, Tensor]:
    """A merged base, which was made with the method's own alpha, at another: every method is linear in it."""
    assert merge.alpha is not None
    scaled = _scaled(bench, tensors, merge)
    moved = followed(bench, {name: tensors[name] for name in scaled}, alpha / merge.alpha)
    return {name: moved.get(name, tensor) for name, tensor in moving(tensors)}


def followed(bench: MergingBench, tensors: State, factor: float) -> dict[str, Tensor]:
    """Tensors with their moves from the pre-trained base multiplied by a factor."""
    return {name: torch.lerp(bench.encoder[name].to(tensor), tensor, factor) for name, tensor in moving(tensors)}


def _scaled(bench: MergingBench, tensors: State, merge: Merge) -> set[str]:
    """Names of the tensors that alpha scales the merged task vectors of."""
    matrices = [name for name, tensor in tensors.items() if tensor.ndim == 2]
    with_grams: list[str] = []
    if merge.grams:
        with GramFile(grams(bench, FOUR[0])) as known:
            with_grams = [name for name in tensors if name in known]
    return set(merge.method.scaled_names(list(tensors), matrices, with_grams))


def moving(tensors: State) -> list[tuple[str, Tensor]]:
    """Those of floats: all that a model is judged by."""
    return [(name, tensor) for name, tensor in tensors.items() if tensor.is_floating_point()]


def search_alpha(bench: MergingBench, tasks: Sequence[str], tensors: State, merge: Merge) -> float:
    """The alpha of the best mean accuracy on held-out training texts; the same golden section for all methods."""

    def score(alpha: float) -> float:
        encoder = at_alpha(bench, tensors, merge, alpha)
        found = [bench.searcher(task).verdict(bench.with_head(encoder, task)).figures.accuracy for task in tasks]
        return sum(found) / len(found)

    alpha, _ = golden_section(score, AlphaSearch(lambda weights: 0.0, high=20, tolerance=0.1))
    return alpha


def distance_ratio(bench: MergingBench, tensors: State, task: str) -> float:
    """Norm of a fine-tune's difference vector from a merged base, by that from the pre-trained one."""
    fine = bench.fine(task)
    ours, theirs = (
        sum(float((fine[name] - base[name]).double().square().sum()) for name, _ in moving(tensors))
        for base in (tensors, bench.encoder)
    )
    return float((ours / theirs) ** 0.5)


def load(path: Path) -> State:
    """The tensors of a merged base."""
    return load_file(path / "model.safetensors")
