"""The demo, end to end on real weights and texts, with a smaller run."""

from pathlib import Path
from typing import Any

import pytest

import dtscodec
from benchmarks.demo.__main__ import CACHE, run
from benchmarks.demo.finetune import Settings
from tests.support import check_against_spec

pytestmark = pytest.mark.slow

SETTINGS = Settings(n_train=96, epochs=1)


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return run(SETTINGS, 64, CACHE)


@pytest.fixture(scope="module")
def folder(result: dict[str, Any]) -> Path:
    return CACHE / SETTINGS.key


def test_the_pack_takes_a_quarter_of_a_percent(result: dict[str, Any]) -> None:
    assert 0.00249 < result["share"] <= 0.0025


def test_the_decoded_model_agrees_with_the_fine_tune(result: dict[str, Any]) -> None:
    assert result["fidelity"]["decoded"]["agreement"] >= 0.9
    assert result["fidelity"]["decoded"]["kl"] < result["fidelity"]["base"]["kl"]


def test_the_decoded_delta_is_near_the_true_one_and_no_larger(result: dict[str, Any]) -> None:
    assert result["weights"]["relative_error"] < 0.9
    assert result["weights"]["norm_ratio"] <= 1.001


def test_every_tensor_of_the_fine_tune_is_in_the_pack(folder: Path) -> None:
    from dtscodec.checkpoints.open import open_checkpoint

    with open_checkpoint(folder / "movie") as fine, dtscodec.open(folder / "movie.dts.safetensors") as pack:
        assert {name: pack.spec(name) for name in pack.keys()} == dict(fine.specs)  # noqa: SIM118


def test_the_spec_decoder_agrees_on_the_real_pack(folder: Path) -> None:
    check_against_spec(folder / "movie.dts.safetensors", folder / "base")


def test_encoding_the_real_fine_tune_again_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = dtscodec.encode(folder / "base", folder / "movie", tmp_path / "again", task="movie")
    assert again.path.read_bytes() == (folder / "movie.dts.safetensors").read_bytes()
