"""Models that accelerate offloads or spreads over devices: right, or refused with a line that fits."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dtscodec
from dtscodec.errors import ModelMismatchError
from tests.support import make_pack

accelerate: Any = pytest.importorskip("accelerate")

CPU = torch.device("cpu")
USES: dict[str, Callable[[nn.Module, Path], object]] = {
    "attach": lambda model, pack: dtscodec.attach(model, {"task": pack}),
    "switch": lambda model, pack: dtscodec.Switcher(model, packs={"task": pack}),
    "apply": lambda model, pack: dtscodec.apply_(model, pack),
}


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Sequential(nn.Linear(16, 16), nn.ReLU()), nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 4)))


@pytest.fixture
def pack(model: nn.Sequential, tmp_path: Path) -> Path:
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fine = {name: tensor + 0.1 * torch.randn(tensor.shape) for name, tensor in base.items()}
    return Path(make_pack(base, fine, tmp_path / "pack", raw=("*",)).path)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize(
    "offload",
    [
        lambda model, folder: accelerate.cpu_offload(model, CPU),
        lambda model, folder: accelerate.disk_offload(model, folder, CPU),
        lambda model, folder: accelerate.dispatch_model(
            model, {"0": "cpu", "1": "disk"}, main_device="cpu", offload_dir=folder, force_hooks=True
        ),
        lambda model, folder: model.to("meta"),
    ],
    ids=["cpu", "disk", "partly", "meta"],
)
def test_weights_that_are_not_in_memory_are_refused_by_name(
    model: nn.Module, pack: Path, tmp_path: Path, offload: Any, use: Any
) -> None:
    with pytest.raises(ModelMismatchError, match=r"^[01]\.[01]\.\w+: .* offloaded .*; load the weights first, without"):
        use(offload(model, str(tmp_path)), pack)


def test_a_model_that_moves_to_another_device_to_run_is_refused(model: nn.Module, pack: Path) -> None:
    moving, _ = accelerate.cpu_offload_with_hook(model, "meta")
    with pytest.raises(ModelMismatchError, match="stay on cpu, got ones that move to meta"):
        dtscodec.attach(moving, {"task": pack})


def test_a_model_that_is_offloaded_after_attach_is_an_error(model: nn.Module, pack: Path) -> None:
    attached = dtscodec.attach(model, {"task": pack})
    accelerate.cpu_offload(model, CPU)
    with attached.serve("task"), pytest.raises(ModelMismatchError, match="attach again"):
        model(torch.randn(2, 16))


@pytest.mark.parametrize("first", ["dispatch", "attach"])
def test_a_model_that_is_spread_over_devices_serves(model: nn.Module, pack: Path, first: str) -> None:
    own, plain, x = copy.deepcopy(model), copy.deepcopy(model), torch.randn(3, 16)
    dtscodec.apply_(own, pack)

    def dispatch() -> None:
        accelerate.dispatch_model(model, {"0": "cpu", "1": "cpu"}, main_device="cpu", force_hooks=True)

    if first == "dispatch":
        dispatch()
    with torch.no_grad(), dtscodec.attach(model, {"task": pack}) as attached:
        if first == "attach":
            dispatch()
        with attached.serve(["task", None, "task"]):
            ours = model(x)
    with torch.no_grad():
        for row, true in enumerate((own, plain, own)):
            assert torch.allclose(ours[row], true(x)[row], atol=1e-6)


def test_a_layer_whose_forward_a_hook_of_another_kind_wraps_is_refused(model: nn.Module, pack: Path) -> None:
    class Double(accelerate.hooks.ModelHook):  # type: ignore[misc]
        def post_forward(self, module: nn.Module, output: Any) -> Any:
            return 2 * output

    accelerate.hooks.add_hook_to_module(model[0][0], Double())  # type: ignore[index]
    with pytest.raises(ModelMismatchError, match="use Switcher"):
        dtscodec.attach(model, {"task": pack})
