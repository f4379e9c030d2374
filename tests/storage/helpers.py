"""Objects in the fake storage, and models to put there."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from dtscodec.storage.paths import as_path, storage
from tests.cli.helpers import Tensors


def put(url: str, data: bytes) -> None:
    as_path(url).write_bytes(data)


def objects(bucket: str) -> dict[str, bytes]:
    """All that a bucket holds, uploads that were begun included."""
    files, name = storage(as_path(bucket))
    begun = files.call_s3("list_multipart_uploads", Bucket=name.rstrip("/")).get("Uploads", [])
    found = {path.removeprefix(name): files.cat_file(path) for path in files.find(name)}
    return found | {f"upload of {upload['Key']}": b"" for upload in begun}


def base_model() -> Tensors:
    """Four tensors, 3 MB."""
    generator = torch.Generator().manual_seed(3)
    layers: Tensors = {f"layer.{i}.weight": torch.randn(512, 512, generator=generator) for i in range(3)}
    return layers | {"bias": torch.randn(512, generator=generator)}


def fine_model(seed: int) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    fine = base_model()
    for name in list(fine)[1:]:
        fine[name] += 0.02 * torch.randn(fine[name].shape, generator=generator)
    return fine


def save_sharded(directory: Path, tensors: Tensors) -> None:
    """Two shards and their index."""

    directory.mkdir()
    names = sorted(tensors)
    shards = {"a.safetensors": names[:3], "b.safetensors": names[3:]}
    for shard, held in shards.items():
        save_file({name: tensors[name] for name in held}, directory / shard)
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
