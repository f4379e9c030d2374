"""`LoadedExact`: a tensor in memory that is not what was encoded is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import dtscodec
from dtscodec.checkpoints.containers.in_memory import MappingCheckpoint
from dtscodec.decoding.loaded_exact import LoadedExact, load_exact
from dtscodec.decoding.reconstruct import ReadBase
from dtscodec.errors import FormatError
from dtscodec.packs.pack import Pack

CPU = torch.device("cpu")
EXACT = dtscodec.EncodeConfig(preset=dtscodec.BaseOnly(), exact=True)
DAMAGE: dict[str, tuple[Callable[[LoadedExact], LoadedExact], str]] = {
    "a chunk that ends early": (lambda own: replace(own, chunks=[own.chunks[0][:-3]]), "residual"),
    "another leaf": (lambda own: replace(own, leaf=bytes(32)), "content"),
}


@pytest.fixture
def loaded(tmp_path: Path) -> tuple[LoadedExact, ReadBase, torch.Tensor]:
    torch.manual_seed(0)
    base = {"w": torch.randn(40, 30)}
    fine = base["w"] + 0.01 * torch.randn(40, 30)
    path = dtscodec.encode(base, {"w": fine}, tmp_path / "p.safetensors", EXACT).path
    checkpoint = MappingCheckpoint(base)
    with Pack(path) as pack:
        own = load_exact(pack.reader, "w")
    return own, lambda name: (checkpoint.specs[name], torch.from_numpy(checkpoint.read(name).copy())), fine


def test_it_decodes_bit_for_bit(loaded: tuple[LoadedExact, ReadBase, torch.Tensor]) -> None:
    own, read_base, fine = loaded
    assert torch.equal(own.decode(read_base, CPU), fine.reshape(-1).view(torch.uint8))


@pytest.mark.parametrize(("damage", "reason"), DAMAGE.values(), ids=DAMAGE)
def test_what_is_damaged_is_refused_with_a_format_error(
    loaded: tuple[LoadedExact, ReadBase, torch.Tensor],
    damage: Callable[[LoadedExact], LoadedExact],
    reason: str,
) -> None:
    own, read_base, _ = loaded
    with pytest.raises(FormatError, match="w: ") as caught:
        damage(own).decode(read_base, CPU)
    assert caught.value.reason == reason
