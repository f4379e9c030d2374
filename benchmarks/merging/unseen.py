"""Part `unseen`: each of the four domains is left out in turn, and its pack fused from those of the other three.

Of the task that is left out only the head is known: its fine-tune's, as the authors of DTS have it, and a few texts
without labels.
"""

from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

import dtscodec
from benchmarks.demo.finetune import Settings, batch, initial_model, load_model, tokenizer
from benchmarks.merging.bench import FOUR, HEAD, MergingBench, State
from benchmarks.merging.merges import AVERAGE, TIES, followed, load, merged, moving
from benchmarks.merging.packs import decoded, plain
from benchmarks.merging.rows import Row
from dtscodec.fusion import HeadSimilarity, VectorSimilarity

PART, SIZE = "unseen", "0.25%"
TEXTS = 64
"""Of each task, that its embedding is the mean of."""
ARITHMETIC = 0.3
"""Alpha of task arithmetic, its authors' value."""
SCALED = {1.0: "equal", **{scale: f"equal, adding up to {scale:g}" for scale in (1.5, 2.0, 3.0)}}
"""Sums of equal weights, and their names; at 3 each of three packs counts whole."""
LENT = "equal, adding up to what serves the seen tasks"
SHARPNESS = 20.0
"""Of a softmax over cosines."""
FUSED = "fused"
BASE, PLAIN = "pre-trained", "average"


def run(bench: MergingBench) -> None:
    """Judge the baselines of fusion, and every way to choose mixing weights."""
    for task in FOUR:
        seen = [other for other in FOUR if other != task]
        _others(bench, task, seen)
        for name, options in _ways(bench, task, seen).items():
            bench.row(PART, FUSED, name, task, partial(_fused, bench, task, seen, name, options))
    _lend(bench)


def _others(bench: MergingBench, task: str, seen: Sequence[str]) -> None:
    def of(encoder: State) -> tuple[State, dict[str, float]]:
        return bench.with_head(encoder, task), {}

    alpha = len(seen) * ARITHMETIC
    bench.row(PART, "fine-tune", "", task, lambda: (bench.fine(task), {}))
    bench.row(PART, BASE, "", task, lambda: of(bench.encoder))
    bench.row(PART, PLAIN, "", task, lambda: of(load(merged(bench, seen, AVERAGE))))
    bench.row(PART, "task arithmetic", "", task, lambda: of(followed(bench, load(merged(bench, seen, AVERAGE)), alpha)))
    bench.row(PART, "TIES", "", task, lambda: of(load(merged(bench, seen, TIES))))


def _ways(bench: MergingBench, task: str, seen: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Options of `fuse` by what they are called in the log."""
    like = bench.directory(task)
    count = len(seen)
    ways: dict[str, Mapping[str, Any]] = {
        "heads": {"like": like},
        "heads minus the initial one": {"like": HeadSimilarity(like, minus=_initial_head(bench))},
        "texts": {"like": VectorSimilarity(task, _embeddings(bench)), "head": like},
        "texts, sharpened": {"weights": _sharpened(bench, task, seen), "head": like},
    }
    return ways | {name: {"weights": [scale / count] * count, "head": like} for scale, name in SCALED.items()}


def _fused(
    bench: MergingBench, task: str, seen: Sequence[str], name: str, options: Mapping[str, Any]
) -> tuple[State, dict[str, float]]:
    out = bench.folder / "fused" / name.replace(" ", "-") / f"{task}.safetensors"
    out.parent.mkdir(parents=True, exist_ok=True)
    packs = [plain(bench, other, SIZE) for other in seen]
    size = dtscodec.Size.parse(SIZE)
    report = dtscodec.fuse(packs, out, base=bench.base, target=size, task=task, force=True, **options)
    state, figures = decoded(out, bench.base)
    weights = {f"weight of {other}": round(weight, 4) for other, weight in zip(seen, report.weights, strict=True)}
    return state, {**figures, "error": report.relative_error, **weights}


def _initial_head(bench: MergingBench) -> dict[str, Tensor]:
    """Return the head that all heads were trained from."""
    state = initial_model(bench.base, 2).state_dict()
    return {name: tensor for name, tensor in state.items() if name.startswith(HEAD)}


# Texts


def _embeddings(bench: MergingBench) -> Path:
    """A file of one vector a task: the mean over texts of the base encoder's mean over tokens, of norm 1.

    Centred at their mean, four such vectors point away from each other, and `fuse` refuses them.
    """
    path = bench.folder / "embeddings.safetensors"
    if not path.exists():
        save_file(_mean_embeddings(bench), path)
    return path


@cache
def _mean_embeddings(bench: MergingBench) -> dict[str, Tensor]:
    model: Any = load_model(bench.base, num_labels=2).bert
    tokens = tokenizer(bench.base, Settings().max_length)
    found = {}
    for task in FOUR:
        texts = [example.text for example in bench.training(task, 0, TEXTS)]
        inputs = batch([encoding.ids for encoding in tokens.encode_batch(texts)])
        with torch.inference_mode():
            hidden = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None]
        vectors = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1))
        found[task] = torch.nn.functional.normalize(vectors.mean(0), dim=0).clone()
    return found


def _sharpened(bench: MergingBench, task: str, seen: Sequence[str]) -> list[float]:
    """A softmax over cosines, so that the most similar task counts most."""
    vectors = _mean_embeddings(bench)
    cosines = torch.stack([vectors[other] @ vectors[task] for other in seen])
    weights: list[float] = torch.softmax(SHARPNESS * cosines, 0).tolist()
    return weights


# What weights add up to


def _lend(bench: MergingBench) -> None:
    """The scale that serves the seen tasks best when each of them is left out in turn, of two packs then; so nothing of
    the unseen task is used. Chosen on held-out training texts of the seen ones.
    """
    for task in FOUR:
        if bench.log.has(PART, FUSED, LENT, task):
            continue
        scores = _scores(bench, [other for other in FOUR if other != task])
        best = max(SCALED, key=lambda scale: scores[scale])
        figures = bench.log.figures(PART, FUSED, SCALED[best], task)
        others = {f"score at {scale:g}": round(score, 4) for scale, score in scores.items()}
        bench.log.put(Row(PART, FUSED, LENT, task, {**figures, "scale": best, **others}))


def _scores(bench: MergingBench, seen: Sequence[str]) -> dict[float, float]:
    """Mean accuracy on each of the tasks with the sum of the others' decoded differences, by scale."""
    states = {task: decoded(plain(bench, task, SIZE), bench.base)[0] for task in seen}
    found: dict[float, float] = {}
    for scale in SCALED:
        right = 0.0
        for task in seen:
            one, two = (states[other] for other in seen if other != task)
            middle = {name: (one[name] + two[name]) / 2 for name, _ in moving(one) if not name.startswith(HEAD)}
            state = bench.with_head(followed(bench, middle, scale), task)
            right += bench.searcher(task).verdict(state).figures.accuracy
        found[scale] = right / len(seen)
    return found
