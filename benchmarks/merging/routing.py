"""Part `routing`: ESM++, rows that find their tasks by prototypes, against `attach` with the task known."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

import dtscodec
from benchmarks.common.judge import Predict
from benchmarks.demo.finetune import load_model
from benchmarks.merging import bases, esm
from benchmarks.merging.bench import FOUR, MergingBench
from benchmarks.merging.merges import ESM, at_alpha, grams, load, merged
from benchmarks.merging.packs import pack
from benchmarks.merging.rows import Row
from dtscodec.encoding.config import EncodeConfig
from dtscodec.encoding.targets import Size
from dtscodec.runtime.attached import Attached

PART = "routing"
SIZES = ("0.25%", "0.5%")
KNOWN, BY_LAYER, BY_SAMPLE = "task known", "routed by layer", "routed by sample"
WAYS = (KNOWN, BY_LAYER, BY_SAMPLE)


def run(bench: MergingBench) -> None:
    """Packs of all four tasks beside the ESM base at the alpha found in part `esm`, each task's own head above."""
    base = _base(bench)
    for size in SIZES:
        for task in FOUR:
            if not all(bench.log.has(PART, way, size, task) for way in WAYS):
                _judge(bench, base, size, task)


def _base(bench: MergingBench) -> Path:
    """The ESM base as a file; made where it is missing."""
    path = bench.folder / "merged" / "esm-at-alpha" / "model.safetensors"
    if not path.exists():
        alpha = bench.log.figures(esm.PART, ESM.name, bases.SEARCHED, "")["alpha"]
        tensors = at_alpha(bench, load(merged(bench, FOUR, ESM)), ESM, alpha)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def _judge(bench: MergingBench, base: Path, size: str, task: str) -> None:
    """All ways on the texts of one task."""
    config = EncodeConfig(target=Size.parse(size), files=False)  # The base's directory has none to name.
    packs = {other: pack(bench, other, "esm", base, size, config) for other in FOUR}
    model = load_model(bench.directory(task))
    model.load_state_dict(bench.with_head(load(base.parent), task))
    total = sum(path.stat().st_size for path in packs.values())
    with dtscodec.attach(model, packs) as attached:
        for way in WAYS:
            if not bench.log.has(PART, way, size, task):
                figures = bench.judge(task).verdict_of(_predict(bench, model, attached, way, task)).figures
                bench.log.put(Row(PART, way, size, task, {**figures._asdict(), "bytes": total}))


def _predict(bench: MergingBench, model: Any, attached: Attached, way: str, task: str) -> Predict:
    """Return a function that runs a model in one of the ways.

    The head is the task's own in all of them: whose texts these are is not known, but what is asked of them is.
    """
    prototypes = {other: grams(bench, other) for other in FOUR}
    router = attached.route(prototypes, "sample" if way == BY_SAMPLE else "layer")

    def predict(inputs: Mapping[str, Tensor]) -> Tensor:
        serving = attached.serve(task) if way == KNOWN else attached.routing(router, inputs["attention_mask"], task)
        with serving:
            logits: Tensor = model(**inputs).logits
        return logits

    return predict
