"""Real architectures, small: every tensor of a fine-tune is restored, and the model runs."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import dtscodec
from benchmarks.architectures.table import ARCHITECTURES as TABLE
from benchmarks.architectures.table import check
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.encoding.targets import Size
from dtscodec.packs.byte_counts import TensorSize, tensor_sizes
from tests import models
from tests.models import ARCHITECTURES, Pair, State
from tests.support import make_pack

pytestmark = pytest.mark.slow

PRESETS: dict[str, dict[str, Any]] = {"paper": {"preset": dtscodec.Paper()}, "best": {"target": Size.parse("30%")}}
KINDS = {"directory": models.save, "sharded": models.save_sharded, "bin": models.save_bin}
"""Ways to save a fine-tune; besides there is the state dict in memory."""

REPRESENTATIVES = {
    "dense decoder": "Qwen2 (tied)",
    "fused projections": "Phi-3",
    "mixture of experts": "Qwen3-MoE",
    "encoder-decoder": "T5",
    "encoder": "BERT (classification)",
    "vision": "ViT",
    "vision-language": "LLaVA",
    "state space": "Mamba",
    "diffusion": "UNet (diffusers)",
    "sentence embedding": "BERT with Dense (sentence-transformers)",
}
"""An architecture of each class in the table of `docs/architectures.md`."""


@pytest.mark.parametrize("name", REPRESENTATIVES.values(), ids=REPRESENTATIVES.keys())
def test_every_function_on_an_architecture_is_right_or_refused_by_name(name: str) -> None:
    assert check(TABLE[name]).failures == []


def test_every_class_of_the_table_has_a_representative() -> None:
    assert {TABLE[name].kind: name for name in REPRESENTATIVES.values()} == REPRESENTATIVES


@pytest.fixture(scope="module", params=ARCHITECTURES)
def pair(request: pytest.FixtureRequest) -> Pair:
    return models.make_pair(request.param)


@pytest.fixture(scope="module")
def base_folder(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.save(pair.base, tmp_path_factory.mktemp("base") / "base")


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("kind", [*KINDS, "memory"])
def test_every_tensor_is_restored_and_the_model_runs(
    kind: str, preset: str, pair: Pair, base_folder: Path, tmp_path: Path
) -> None:
    fine: Source = KINDS[kind](pair.fine, tmp_path / "fine") if kind in KINDS else pair.fine.state_dict()
    # Some models have other names in memory than on disk: their base must be in memory, too.
    on_disk = kind in ("directory", "sharded") or pair.architecture.same_names
    base: Source = base_folder if on_disk else pair.base.state_dict()

    pack = make_pack(base, fine, tmp_path / "pack", **PRESETS[preset]).path
    with dtscodec.decode(pack, base) as decoded:
        decoded.save(tmp_path / "decoded")

    with dtscodec.open(pack) as opened:
        sizes = {size.name: size for size in tensor_sizes(opened)}
    check_tensors(models.read_all(base), models.read_all(fine), models.read_all(tmp_path / "decoded"), sizes, preset)
    check_ties(pair.fine, models.read_all(tmp_path / "decoded"))
    if kind == "memory":  # A mapping has no configuration.
        pair.fine.config.save_pretrained(tmp_path / "decoded")
    check_model(pair, load(pair.fine, tmp_path / "decoded"))


def check_tensors(base: State, fine: State, decoded: State, sizes: Mapping[str, TensorSize], preset: str) -> None:
    assert decoded.keys() == fine.keys() == sizes.keys()
    coded, missed, whole = 0, 0.0, 0.0
    for name, tensor in fine.items():
        ours, kind = decoded[name], sizes[name].kind
        assert (ours.shape, ours.dtype) == (tensor.shape, tensor.dtype), name
        start = base.get(name, base.get(name.partition(".")[2]))
        if start is not None and torch.equal(start, tensor):
            assert kind == "same", name
        if kind == "same" and preset == "best":
            assert start is not None, name
            assert torch.equal(ours, start), name
        elif kind in ("same", "raw"):
            assert torch.equal(ours, tensor), name
        elif kind != "tie":
            if start is None:
                assert preset == "best", name
                start = torch.zeros_like(tensor)
            check_delta(name, tensor - start, ours - start)
            coded += 1
        if start is not None and start.is_floating_point():
            missed += float((ours - tensor).double().square().sum())
            whole += float((tensor - start).double().square().sum())
    if preset == "paper":
        assert coded > len(fine) / 4
    assert missed < 0.5 * whole


def check_delta(name: str, true: torch.Tensor, decoded: torch.Tensor) -> None:
    assert (decoded - true).norm() < 0.9 * true.norm(), name
    assert 0.5 * true.norm() < decoded.norm() < 1.2 * true.norm(), name


def check_ties(model: Any, decoded: State) -> None:
    """A tensor that the model holds once is restored equal under all its names."""
    first: dict[int, str] = {}
    for name, tensor in model.state_dict().items():
        original = first.setdefault(tensor.data_ptr(), name)
        if {name, original} <= decoded.keys():
            assert torch.equal(decoded[name], decoded[original]), name


def load(like: Any, folder: Path) -> Any:
    model, info = type(like).from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    return model.eval()


def check_model(pair: Pair, decoded: Any) -> None:
    """The decoded model computes what the fine-tune does rather than what the base does under the same head."""
    start = copy.deepcopy(pair.fine)
    start.load_state_dict(models.start_from(pair.base, pair.fine))
    inputs = pair.architecture.inputs()
    true, ours, others = (models.outputs(model, inputs) for model in (pair.fine, decoded, start))
    assert (ours - true).norm() < 0.7 * (others - true).norm()
