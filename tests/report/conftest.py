from pathlib import Path

import pytest
import torch

import dtscodec
from dtscodec.packs.directory_index import DirectoryIndex, ListedPack, write_directory_index
from dtscodec.packs.pack import Pack
from tests.support import make_pack

Tensors = dict[str, torch.Tensor]

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "layer.1.</title><style>*{display:none}</style>.weight",
    "layer.0.\x1b[2J\u202ereversed.weight",
    "layer.2.&amp;'.weight",
]
LAYERS = 3


def tensors() -> Tensors:
    """A model of a few layers, with what is outside of them and with names that mean harm."""
    generator = torch.Generator().manual_seed(3)
    shapes: dict[str, tuple[int, ...]] = {name: (40, 36) for name in HOSTILE}
    for layer in range(LAYERS):
        shapes[f"layer.{layer}.attention.query.weight"] = (48, 40)
        shapes[f"layer.{layer}.attention.query.bias"] = (48,)
        shapes[f"layer.{layer}.output.dense.weight"] = (40, 64)
    shapes["embeddings.weight"] = (90, 40)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()} | {"steps": torch.ones(2)}


@pytest.fixture(scope="session")
def base() -> Tensors:
    return tensors() | {"steps": torch.tensor([1, 2])}


@pytest.fixture(scope="session")
def fine(base: Tensors) -> Tensors:
    """A fine-tune: all matrices moved, a counter, a new head."""
    generator = torch.Generator().manual_seed(4)
    moved = {
        name: tensor + 0.02 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in base.items()
        if tensor.is_floating_point()
    }
    return moved | {"steps": torch.tensor([1, 9]), "classifier.weight": torch.randn(2, 40, generator=generator)}


@pytest.fixture(scope="session")
def pack(base: Tensors, fine: Tensors, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack in which all that changed is coded."""
    return make_pack(
        base, fine, tmp_path_factory.mktemp("report") / "movie.safetensors", target=dtscodec.RankShare(0.1)
    ).path


@pytest.fixture(scope="session")
def folder(base: Tensors, fine: Tensors, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of two packs."""
    root = tmp_path_factory.mktemp("folder")
    (root / "packs").mkdir()
    listed = {}
    for task, rank in (("movie", 2), ("<tweets>", 5)):
        name = f"packs/{rank}.safetensors"
        report = make_pack(base, fine, root / name, target=dtscodec.Rank(rank))
        with Pack(report.path) as made:
            listed[task] = ListedPack(name, made.size, made.id)
    write_directory_index(root, DirectoryIndex(listed))
    return root
