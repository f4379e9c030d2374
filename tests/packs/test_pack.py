"""An open pack: deltas and factors without a base and without torch, sizes by kind and tensor."""

from pathlib import Path

import numpy as np
import pytest
import torch

import dtscodec
from tests.support import CODING, make_pack


def checkpoint() -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return {"ids": torch.arange(7), "wide": torch.randn(130, 257, generator=random)}


def fine_tuned(base: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    wide = base["wide"] + torch.randn(base["wide"].shape, generator=random) * 0.05
    wide[:20] = base["wide"][:20]
    return {"ids": base["ids"], "wide": wide, "head": torch.randn(3, 70, generator=random)}


@pytest.fixture
def base() -> dict[str, torch.Tensor]:
    return checkpoint()


@pytest.fixture(params=list(CODING.values()), ids=list(CODING))
def pack(request: pytest.FixtureRequest, base: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    return make_pack(base, fine_tuned(base), tmp_path / "task.safetensors", **request.param).path


def test_the_delta_of_one_tensor_needs_no_base_and_no_torch(pack: Path, base: dict[str, torch.Tensor]) -> None:
    with dtscodec.open(pack) as opened, dtscodec.decode(pack, base) as decoded:
        delta = opened.delta("wide")
        assert isinstance(delta, np.ndarray)
        assert not delta[:20].any()
        assert np.allclose(delta, (decoded["wide"] - base["wide"]).numpy(), atol=1e-5)
        assert not opened.delta("ids").any()
        with pytest.raises(ValueError, match="stored exactly"):
            opened.delta("head")
        with pytest.raises(KeyError):
            opened.delta("none")


def test_factors_are_those_of_the_delta(pack: Path) -> None:
    with dtscodec.open(pack) as opened:
        [(row, coded), *more] = opened.factors("wide")
        assert (row, more) == (0, []) or row == 20
        assert np.array_equal(opened.delta("wide")[row:], coded.place(130 - row, 257))
        assert opened.factors("ids") == []
