"""Tokens a second: packs beside the model, the merged model, and a LoRA of the same ranks."""

import copy
from collections.abc import Iterable
from typing import Any

import torch

import dtscodec
from benchmarks.common.timing import median_times
from benchmarks.decode.packs import SIZES, TASKS, base_model, made, many
from dtscodec.format.blocks import LowRank

LENGTH = 64
BATCHES = (1, 8, 32)
NUMBERS = (1, 8, 32)


def rows() -> list[dict[str, Any]]:
    """For each size, batch and number of tasks: seconds of each way, and how much more than merged they are."""
    return [_row(size, batch, tasks) for size in SIZES for batch in BATCHES for tasks in NUMBERS if tasks <= batch]


@torch.inference_mode()
def _row(size: str, batch: int, tasks: int) -> dict[str, Any]:
    packs = {f"task {number}": pack for number, pack in enumerate(many(tasks, size))}
    model, merged, lora = base_model(), base_model(), _lora(size)
    dtscodec.apply_(merged, packs["task 0"])
    names = [f"task {number % tasks}" for number in range(batch)]
    ids = torch.randint(1000, 20000, (batch, LENGTH), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with dtscodec.attach(model, packs) as attached:

        def ours() -> None:
            with attached.serve(names if tasks > 1 else names[0]):
                model(**inputs)

        ways = {"merged": lambda: merged(**inputs), "attached": ours}
        if tasks == 1:
            ways["LoRA"] = lambda: lora(**inputs)
        seconds = median_times(ways)
    return {
        "size": size,
        "batch": [batch, LENGTH],
        "tasks": tasks,
        "seconds": seconds,
        "tokens_per_second": {name: batch * LENGTH / found for name, found in seconds.items()},
        "operations": _operations(packs.values()),
    }


def _operations(packs: Iterable[Any]) -> float:
    """Return the operations of the linear layers' factors as a share of those of their weights, mean over tasks."""
    added = whole = 0
    for path in packs:
        with dtscodec.open(path) as pack:
            for entry in pack.index.tensors:
                if len(entry.spec.shape) == 2 and "embeddings" not in entry.name:
                    rows, columns = entry.spec.shape
                    whole += rows * columns
                    added += sum((rows + columns) * block.rank for block in entry.blocks if isinstance(block, LowRank))
    return added / whole


def _lora(size: str) -> Any:
    """A model with a LoRA by `peft` whose ranks are those of the pack, layer by layer."""
    from peft import LoraConfig, get_peft_model

    with dtscodec.open(made(TASKS[0], size).pack) as pack:
        ranks = {
            entry.name.removesuffix(".weight"): entry.blocks[0].rank
            for entry in pack.index.tensors
            if isinstance(entry.blocks[0], LowRank) and "embeddings" not in entry.name
        }
    config = LoraConfig(r=8, lora_alpha=8, target_modules=list(ranks), rank_pattern=ranks, alpha_pattern=ranks)
    model = get_peft_model(copy.deepcopy(base_model()), config).eval()
    random = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.01, generator=random)
    return model
