"""Decode, Switcher, attach, numpy and the spec's decoder agree: level A to the bit, level B within the bound."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import dtscodec
from dtscodec.checkpoints.torch_dtypes import tensor_bytes
from tests.support import assert_equals_reference, make_pack, spec_decoder, spec_tensors

SETTINGS: list[dict[str, Any]] = [
    *({"target": target} for target in (dtscodec.Rank(1), dtscodec.Rank(7), dtscodec.RankShare(0.5))),
    *({"target": dtscodec.Size.parse(size)} for size in ("2kB", "6kB", "40kB")),
    {"preset": dtscodec.Paper(), "target": dtscodec.RankShare(0.3)},
    {"preset": dtscodec.Paper("vector")},
    {"raw": ("*",)},
]


@st.composite
def fine_tunes(draw: st.DrawFn) -> tuple[Any, dict[str, torch.Tensor]]:
    """Two linear layers, and a fine-tune with changes in some rows and columns."""
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    model = nn.Sequential()
    for _ in range(2):
        model.append(nn.Linear(draw(st.integers(1, 90)), draw(st.integers(1, 90)), dtype=dtype))
    fine = {}
    for name, tensor in model.state_dict().items():
        delta = 0.1 * torch.randn(tensor.shape, generator=random)
        delta[: draw(st.integers(0, len(tensor) - 1))] = 0
        if delta.dim() == 2:
            delta[:, : draw(st.integers(0, delta.shape[1] - 1))] = 0
        fine[name] = (tensor + delta.to(dtype)).to(dtype)
    return model, fine


@given(fine_tunes(), st.sampled_from(SETTINGS))
@settings(deadline=None, max_examples=60)
def test_all_decoders_of_a_tensor_agree(pair: tuple[Any, dict[str, torch.Tensor]], how: dict[str, Any]) -> None:
    model, fine = pair
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with TemporaryDirectory() as folder:
        path = make_pack(base, fine, Path(folder) / "pack", **how).path  # It compares decode with the spec's decoder.
        reference, tensors = spec_decoder.Pack(path.read_bytes()), spec_tensors(base)
        with dtscodec.decode(path, base) as decoded, dtscodec.open(path) as pack:
            state = dict(decoded)
            for name, tensor in base.items():
                plain = torch.from_numpy(np.ascontiguousarray(pack.tensor(name, base))).to(tensor.dtype)
                assert_equals_reference(reference, name, tensor_bytes(plain), tensors)
        with torch.no_grad(), dtscodec.attach(model, {"task": path}) as attached, attached.serve("task"):
            for index, layer in enumerate(model):
                eye = torch.eye(layer.in_features, dtype=layer.weight.dtype)
                bias = layer(torch.zeros_like(eye[0]))
                assert_equals_reference(reference, f"{index}.bias", tensor_bytes(bias), tensors)
        switcher = dtscodec.Switcher(model, packs={"task": path})
    switcher.activate("task")
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@given(st.data(), st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_a_task_has_the_same_weights_whichever_was_active_before(data: Any, seed: int) -> None:
    torch.manual_seed(seed)
    model: Any = nn.Linear(data.draw(st.integers(40, 70)), 60)
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    states, switcher = {}, dtscodec.Switcher(model)
    with TemporaryDirectory() as folder:
        for task in ("one", "two", "three"):
            delta = torch.zeros_like(base["weight"])
            rows, cols = (slice(*sorted(data.draw(st.tuples(*[st.integers(0, size)] * 2)))) for size in delta.shape)
            delta[rows, cols] = 0.3 * torch.randn(delta[rows, cols].shape)
            fine = {"weight": base["weight"] + delta, "bias": base["bias"] + 0.1}
            path = make_pack(base, fine, Path(folder) / task, **data.draw(st.sampled_from(SETTINGS))).path
            switcher.add(task, path)
            with dtscodec.decode(path, base) as decoded:
                states[task] = dict(decoded)
    for task in data.draw(st.lists(st.sampled_from([*states, None]), min_size=2, max_size=6)):
        if task is None:
            switcher.deactivate()
        else:
            switcher.activate(task)
        wanted = base if task is None else states[task]
        assert all(torch.equal(tensor, wanted[name]) for name, tensor in model.state_dict().items())


@given(fine_tunes(), st.sampled_from(SETTINGS))
@settings(deadline=None, max_examples=60)
def test_the_side_branch_of_a_weight_is_within_the_bound(
    pair: tuple[Any, dict[str, torch.Tensor]], how: dict[str, Any]
) -> None:
    model, fine = pair
    for layer in model:
        layer.bias = None
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with TemporaryDirectory() as folder:
        path = make_pack(base, {name: fine[name] for name in base}, Path(folder) / "pack", **how).path
        reference, tensors = spec_decoder.Pack(path.read_bytes()), spec_tensors(base)
        with torch.no_grad(), dtscodec.attach(model, {"task": path}) as attached, attached.serve("task"):
            for index, layer in enumerate(model):
                # The rows of a unit matrix pick out the columns of the weight.
                columns = layer(torch.eye(layer.in_features, dtype=layer.weight.dtype))
                assert_equals_reference(reference, f"{index}.weight", tensor_bytes(columns.T.contiguous()), tensors)
