"""Memory of a hundred packs attached to one model."""

import gc
import os
from typing import Any

import torch

import dtscodec
from benchmarks.common.process_usage import anonymous_memory
from benchmarks.decode.packs import SIZES, base_model, many

COUNT = 100


def row(count: int = COUNT, size: str = SIZES[-1]) -> dict[str, Any]:
    """Anonymous memory that packs add, measured from outside of Python, against one checkpoint in float32."""
    packs = list(many(count, size))
    model = base_model()
    with dtscodec.attach(model, {"first": packs[0]}) as attached:  # What is needed once, whatever the number of packs.
        with torch.inference_mode(), attached.serve("first"):
            model(input_ids=torch.ones(1, 8, dtype=torch.long))
        gc.collect()
        before = anonymous_memory(os.getpid())
        for number, pack in enumerate(packs[1:]):
            attached.add(str(number), pack)
        gc.collect()
        added = (anonymous_memory(os.getpid()) - before) * count / (count - 1)
        counted = sum(attached.memory().values())
    checkpoint = sum(tensor.nbytes for tensor in model.state_dict().values())
    return {
        "packs": count,
        "size": size,
        "pack_bytes": sum(pack.stat().st_size for pack in packs),
        "tensor_bytes": counted,
        "anonymous_bytes": round(added),
        "checkpoint_bytes": checkpoint,
    }
