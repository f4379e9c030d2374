"""The two layers of an exact pack on the Hub: a reader of the front fetches little more than the stripped pack."""

from pathlib import Path

import pytest
import torch

import dtscodec
from dtscodec.storage import hub_tree
from tests.cli.helpers import Cli, snapshot, write_model
from tests.fakes.hub.server import LoopbackHub
from tests.hub.helpers import uploads_large_files

pytestmark = uploads_large_files


@pytest.fixture
def exact(cli: Cli, hub: LoopbackHub) -> LoopbackHub:
    """The Hub with an exact pack of a fine-tune, and its base."""
    generator = torch.Generator().manual_seed(1)
    base = {f"layer.{i}": torch.randn(400, 500, generator=generator) for i in range(6)}
    noise = {name: torch.randn(400, 500, generator=generator) for name in base}
    write_model(Path("large-base"), base)
    write_model(Path("large"), {name: weight + 0.01 * noise[name] for name, weight in base.items()})
    cli("encode", "large-base", "large", "-o", "exact", "--exact", "--size", "150kB")
    hub.create("me/exact")
    hub.commit("me/exact", {"exact.safetensors": Path("exact").read_bytes()})
    hub_tree.clear_listings()
    hub.requests.clear()
    return hub


def fetched(hub: LoopbackHub) -> int:
    return sum(log.sent for log in hub.requests if log.method == "GET" and "/cdn/" in log.path)


def test_a_reader_of_the_front_fetches_little_more_than_the_stripped_pack(cli: Cli, exact: LoopbackHub) -> None:
    cli("strip", "hf://me/exact/exact.safetensors", "-o", "stripped")
    stripped = Path("stripped").stat().st_size
    assert fetched(exact) <= 1.05 * stripped < Path("exact").stat().st_size / 5
    exact.requests.clear()
    cli("decode", "hf://me/exact/exact.safetensors", "--base", "large-base", "--lossy", "-o", "lossy")
    assert fetched(exact) <= 1.05 * stripped
    cli("decode", "stripped", "--base", "large-base", "-o", "of-stripped")
    assert snapshot(Path("lossy")) == snapshot(Path("of-stripped"))


def test_the_whole_pack_gives_the_fine_tune_byte_for_byte(cli: Cli, exact: LoopbackHub) -> None:
    cli("decode", "hf://me/exact/exact.safetensors", "--base", "large-base", "-o", "back")
    assert Path("back/model.safetensors").read_bytes() == Path("large/model.safetensors").read_bytes()


def test_one_tensor_is_read_alone_bit_for_bit(exact: LoopbackHub) -> None:
    with dtscodec.decode("hf://me/exact/exact.safetensors", "large-base") as decoded:
        weight = decoded["layer.3"]
    with dtscodec.decode("exact", "large-base") as whole:
        assert torch.equal(weight, whole["layer.3"])
    # A layer is read by whole digest blocks of 1 MiB.
    assert fetched(exact) < 0.8 * Path("exact").stat().st_size
