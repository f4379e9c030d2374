"""Packs attached to a model: each row of a mixed batch equals the output of its own decoded checkpoint."""

import copy
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import dtscodec
from dtscodec.errors import ModelMismatchError, TaskError
from tests.runtime.helpers import Tasks, make_tasks
from tests.support import make_pack

TOLERANCE = 2e-4
"""Of outputs, relative to the largest: float32 in another order of summation, through all layers."""


def close(ours: Tensor, true: Tensor) -> bool:
    return float((ours - true).abs().max()) <= TOLERANCE * float(true.abs().max())


def repeated(inputs: dict[str, Tensor], times: int) -> dict[str, Tensor]:
    return {name: tensor.repeat(times, *[1] * (tensor.dim() - 1)) for name, tensor in inputs.items()}


MIXES: list[Any] = [
    "one",
    ["one", "one", "one", "one"],
    ["one", "two", None, "one"],
    [None, "two", "two", "one"],
    [None, None, None, None],
]


@pytest.mark.parametrize("mix", MIXES, ids=str)
def test_each_row_is_the_output_of_its_own_decoded_checkpoint(attachable: Tasks, mix: Any) -> None:
    inputs = repeated(attachable.inputs, 2)
    with torch.no_grad(), dtscodec.attach(attachable.model.eval(), attachable.packs) as attached:
        with attached.serve(mix):
            ours = attachable.model(**inputs).logits
        for row, task in enumerate([mix] * 4 if isinstance(mix, str) else mix):
            true = attachable.model_of(task).eval()(**inputs).logits[row]
            assert close(ours[row], true), row


def test_outside_of_serve_the_model_is_the_base(attachable: Tasks) -> None:
    model = attachable.model.eval()
    with torch.no_grad():
        before = model(**attachable.inputs).logits
        with dtscodec.attach(model, attachable.packs) as attached:
            assert torch.equal(model(**attachable.inputs).logits, before)
            with attached.serve("one"):
                assert not torch.equal(model(**attachable.inputs).logits, before)
            assert torch.equal(model(**attachable.inputs).logits, before)
        assert torch.equal(model(**attachable.inputs).logits, before)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_model_in_half_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    tasks = make_tasks("llama", tmp_path, attachable=True)
    model, inputs = tasks.model.to(dtype).eval(), repeated(tasks.inputs, 2)
    mix = ["one", "two", None, "one"]
    with torch.no_grad(), dtscodec.attach(model, tasks.packs, tasks.base) as attached, attached.serve(mix):
        ours = model(**inputs).logits.float()
    with torch.no_grad():
        for row, task in enumerate(mix):
            true = tasks.model_of(task).to(dtype).eval()(**inputs).logits[row].float()
            assert (ours[row] - true).norm() < 0.05 * true.norm()


class Layers(nn.Module):
    """One layer of each kind, on its own input."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(40, 24)
        self.embedding = nn.Embedding(50, 24)
        self.conv1d = nn.Conv1d(8, 16, 5, stride=2, padding=2)
        self.conv2d = nn.Conv2d(8, 16, 3, padding=1, dilation=2)
        self.grouped = nn.Conv2d(8, 16, 3, groups=4)
        self.layer_norm = nn.LayerNorm(24)
        self.rms_norm = nn.RMSNorm(24)

    def forward(self, x: Tensor, ids: Tensor, image: Tensor) -> dict[str, Tensor]:
        hidden = self.linear(x)
        return {
            "linear": hidden,
            "embedding": self.embedding(ids),
            "positions": self.embedding(ids[:1]),
            "conv1d": self.conv1d(image.flatten(2)),
            "conv2d": self.conv2d(image),
            "grouped": self.grouped(image),
            "layer_norm": self.layer_norm(hidden),
            "rms_norm": self.rms_norm(hidden),
        }


SETTINGS: dict[str, dict[str, Any]] = {
    "factors": {"target": dtscodec.Rank(3)},
    "exact": {"raw": ("*",)},
    "small": {"target": dtscodec.Size.parse("8%")},
    "large": {"target": dtscodec.Size.parse("60%")},
    "paper": {"preset": dtscodec.Paper()},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("rows", [False, True], ids=["all rows", "some rows"])
def test_each_kind_of_layer_however_it_is_stored(tmp_path: Path, settings: dict[str, Any], rows: bool) -> None:
    torch.manual_seed(1)
    model = Layers()
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    packs = {}
    for task in ("one", "two"):
        fine = {name: tensor + 0.1 * torch.randn(tensor.shape) for name, tensor in base.items()}
        if rows:
            for name, tensor in fine.items():
                tensor[::3] = base[name][::3]
        packs[task] = make_pack(base, fine, tmp_path / task, **settings).path
    inputs = torch.randn(5, 7, 40), torch.randint(0, 50, (5, 7)), torch.randn(5, 8, 9, 9)
    mix = ["two", None, "one", "two", "one"]
    with torch.no_grad(), dtscodec.attach(model, packs) as attached, attached.serve(mix):
        ours = model(*inputs)
    for row, named in enumerate(mix):
        own = copy.deepcopy(model)
        if named:
            dtscodec.apply_(own, packs[named])
        with torch.no_grad():
            for kind, true in own(*inputs).items():
                at = 0 if kind == "positions" else row
                assert close(ours[kind][row], true[at]), (kind, row)


def heads(tmp_path: Path, widths: dict[str, int], **settings: Any) -> tuple[Any, dict[str, Path]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 3))
    base = {name: tensor.clone() for name, tensor in model[:1].state_dict().items()}
    packs = {}
    for task, width in widths.items():
        fine = {name: tensor + 0.05 * torch.randn(tensor.shape) for name, tensor in base.items()}
        fine |= {"1.weight": torch.randn(width, 64), "1.bias": torch.randn(width)}
        packs[task] = make_pack(base, fine, tmp_path / task, raw=("1.*",), **settings).path
    return model, packs


@pytest.mark.parametrize("widths", [{"one": 3, "two": 3}, {"one": 2, "two": 16}, {"one": 3, "two": 5}], ids=str)
def test_heads_of_their_own_are_used_for_each_row_whatever_their_widths(tmp_path: Path, widths: dict[str, int]) -> None:
    model, packs = heads(tmp_path, widths)
    x, mix = torch.randn(4, 64), ["one", None, "two", "one"]
    with torch.no_grad(), dtscodec.attach(model, packs) as attached, attached.serve(mix) as batch:
        y = model(x)
        rows = batch.outputs(y)
    assert y.shape == (4, max(3, *widths.values()))
    for row, task in enumerate(mix):
        assert rows[row].shape == (widths[task] if task else 3,)
        assert y[row].argmax() == rows[row].argmax()
        own = copy.deepcopy(model)
        if task:
            own[1] = nn.Linear(64, widths[task])
            with dtscodec.decode(packs[task], model[:1].state_dict()) as state:
                own.load_state_dict(dict(state))
        with torch.no_grad():
            assert close(rows[row], own(x)[row])
    with torch.no_grad(), dtscodec.attach(model, packs) as attached, attached.serve("two"):
        assert model(x).shape == (4, widths["two"])


def test_output_widths_are_those_of_the_last_layer_that_tasks_replace(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 3))
    base = {name: tensor.clone() for name, tensor in model[:1].state_dict().items()}
    wide = {**base, "1.weight": torch.randn(16, 64), "1.bias": torch.randn(16)}
    inner = {name: tensor + 0.1 for name, tensor in base.items()}
    inner |= {"1.weight": torch.randn(3, 64), "1.bias": torch.randn(3)}
    packs = {
        task: make_pack(base, fine, tmp_path / task, raw=("*",)).path
        for task, fine in (("inner", inner), ("wide", wide))
    }
    with torch.no_grad(), dtscodec.attach(model, packs) as attached, attached.serve(["inner", "wide", None]) as batch:
        assert [len(row) for row in batch.outputs(model(torch.randn(3, 64)))] == [3, 16, 3]


@pytest.mark.parametrize("named", ["task", ["task"]])
def test_a_single_image_without_a_dimension_for_requests(tmp_path: Path, named: Any) -> None:
    model = nn.Conv2d(8, 8, 3, padding=1)
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fine = {name: tensor + torch.rand(tensor.shape) for name, tensor in base.items()}
    pack = make_pack(base, fine, tmp_path / "pack", raw=("*",)).path
    x, own = torch.randn(8, 8, 8), copy.deepcopy(model)
    dtscodec.apply_(own, pack)
    with torch.no_grad(), dtscodec.attach(model, {"task": pack}) as attached, attached.serve(named):
        assert close(model(x), own(x))


def test_a_compiled_layer_serves(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(64, 64))
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pack = make_pack(
        base, {name: tensor + 0.1 for name, tensor in base.items()}, tmp_path / "pack", target=dtscodec.Rank(2)
    ).path
    own, x = copy.deepcopy(model), torch.randn(2, 64)
    dtscodec.apply_(own, pack)
    with torch.no_grad(), dtscodec.attach(model, {"task": pack}) as attached, attached.serve("task"):
        assert close(torch.compile(model, backend="eager")(x), own(x))


def test_a_branch_runs_before_torch_passes_keyword_arguments_to_its_hook(attachable: Tasks) -> None:
    with dtscodec.attach(attachable.model.eval(), attachable.packs) as attached, torch.no_grad(), attached.serve("one"):
        true = attachable.model(**attachable.inputs).logits
        module, branch = next(iter(attached._branches.by_layer.items()))
        assert attached._branches._hook(module, (), torch.ones(1)).equal(torch.ones(1))
        assert branch.module is module
        assert torch.equal(attachable.model(**attachable.inputs).logits, true)


def test_a_task_may_be_added_while_a_batch_is_served(tmp_path: Path) -> None:
    tasks = make_tasks("llama", tmp_path, attachable=True)
    with dtscodec.attach(tasks.model, {"one": tasks.packs["one"]}) as attached, attached.serve(["one"] * 5):
        attached.add("two", tasks.packs["two"])
    assert not any(module._forward_hooks for module in tasks.model.modules())


def test_a_copy_of_the_model_is_the_base_and_cannot_serve(attachable: Tasks) -> None:
    with torch.no_grad(), dtscodec.attach(attachable.model.eval(), attachable.packs) as attached:
        copied = copy.deepcopy(attachable.model)
        assert torch.equal(copied(**attachable.inputs).logits, attachable.model(**attachable.inputs).logits)
        with attached.serve("one"), pytest.raises(ModelMismatchError, match="got a copy of it"):
            copied(**attachable.inputs)


def test_a_base_that_was_opened_for_it_is_closed_with_it(tmp_path: Path) -> None:
    tasks = make_tasks("bert", tmp_path, attachable=True)
    save_file(tasks.base, tmp_path / "base.safetensors")
    model = copy.deepcopy(tasks.model).bfloat16().eval()
    before = len(os.listdir("/proc/self/fd"))
    attached = dtscodec.attach(model, tasks.packs, tmp_path / "base.safetensors")
    attached.detach()
    assert len(os.listdir("/proc/self/fd")) == before


# What cannot be attached


def refused(model: nn.Module, tmp_path: Path, name: str) -> str:
    base = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    fine = {key: tensor + (0.1 if key == name else 0) for key, tensor in base.items()}
    pack = make_pack(base, fine, tmp_path / "pack", raw=(name,)).path
    with pytest.raises(ModelMismatchError, match="use Switcher") as caught:
        dtscodec.attach(model, {"task": pack})
    assert str(caught.value).startswith(f"{name}: ")
    assert not any(module._forward_hooks for module in model.modules())
    dtscodec.Switcher(model, packs={"task": pack}).activate("task")
    return str(caught.value)


class OddNorm(nn.Module):
    """Its epsilon has another name than in other implementations."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.epsilon = nn.Parameter(torch.ones(64)), 1e-2

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon) * self.weight


class OddRMSNorm(OddNorm):
    pass


def replaced() -> nn.Module:
    layer: Any = nn.Linear(64, 64)
    original = layer.forward
    layer.forward = lambda x: 2 * original(x)
    return nn.ModuleDict({"layer": layer})


class Scaled(nn.Embedding):
    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) * 8


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: nn.ModuleDict({"norm": nn.BatchNorm1d(64)}), "norm.weight"),
        (lambda: nn.ModuleDict({"embed": Scaled(64, 64)}), "embed.weight"),
        (lambda: nn.ModuleDict({"lstm": nn.LSTM(64, 64)}), "lstm.weight_hh_l0"),
        (lambda: nn.ModuleDict({"attention": nn.MultiheadAttention(64, 2)}), "attention.out_proj.weight"),
        (lambda: nn.ModuleDict({"experts": nn.ModuleList([nn.Linear(64, 64)])}), "experts.0.weight"),
        (lambda: nn.ModuleDict({"norm": OddRMSNorm()}), "norm.weight"),
        (replaced, "layer.weight"),
        (lambda: nn.ModuleDict({"relative_attention_bias": nn.Embedding(64, 64)}), "relative_attention_bias.weight"),
        (
            lambda: nn.ModuleDict({"circular": nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular")}),
            "circular.weight",
        ),
    ],
    ids=[
        "batch norm",
        "own forward",
        "lstm",
        "attention",
        "looked up for all",
        "expert",
        "odd norm",
        "replaced",
        "padding",
    ],
)
def test_a_layer_that_cannot_have_a_side_branch_is_refused_by_name(make: Any, name: str, tmp_path: Path) -> None:
    refused(make(), tmp_path, name)


def test_a_layer_whose_rows_are_not_the_requests_is_an_error(attachable: Tasks) -> None:
    inputs = repeated(attachable.inputs, 2)
    with dtscodec.attach(attachable.model.eval(), attachable.packs) as attached, torch.no_grad():
        with attached.serve(["one", "two", "one"]), pytest.raises(ModelMismatchError, match="of 3 requests"):
            attachable.model(**inputs)
        with attached.serve(["one", "two", None, "one"]):  # The model is still usable.
            attachable.model(**inputs)


def test_known_names_for_new_tasks_and_unknown_names_are_errors(attachable: Tasks) -> None:
    with dtscodec.attach(attachable.model, {"one": attachable.packs["one"]}) as attached:
        for act in (
            lambda: attached.remove("three"),
            lambda: attached.add("one", attachable.packs["two"]),
            lambda: attached.serve("three").__enter__(),
            lambda: attached.serve(["one", "three"]).__enter__(),
        ):
            with pytest.raises(TaskError, match="expected"):
                act()
        attached.add("two", attachable.packs["two"])
        attached.remove("one")
        assert attached.tasks == ("two",)
    with pytest.raises(ModelMismatchError, match="attach them again"):
        attached.add("one", attachable.packs["one"])


def test_tasks_may_be_added_and_removed_while_the_model_serves(tmp_path: Path) -> None:
    tasks = make_tasks("bert", tmp_path, attachable=True)
    model, failures = tasks.model.eval(), []
    inputs = repeated(tasks.inputs, 2)
    with dtscodec.attach(model, {"one": tasks.packs["one"]}) as attached:
        with torch.no_grad(), attached.serve(["one", None, None, "one"]):
            true = model(**inputs).logits

        def work() -> None:
            for _ in range(15):
                with torch.no_grad(), attached.serve(["one", None, None, "one"]):
                    ours = model(**inputs).logits
                if not torch.equal(ours, true):
                    failures.append(ours)

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(10):
            attached.add("two", tasks.packs["two"])
            attached.remove("two")
        for thread in threads:
            thread.join()
    assert not failures


def test_gradients_flow_through_a_side_branch(tmp_path: Path) -> None:
    tasks = make_tasks("bert", tmp_path, attachable=True)
    hidden = torch.randn(2, 5, 64)
    layer, own = (
        tasks.model.bert.encoder.layer[0].output.dense,
        tasks.model_of("one").bert.encoder.layer[0].output.dense,
    )
    inputs = [torch.randn(2, 5, 96, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2)]
    with dtscodec.attach(tasks.model, tasks.packs) as attached, attached.serve(["one", "one"]):
        layer(inputs[0]).mul(hidden).sum().backward()
    own(inputs[1]).mul(hidden).sum().backward()
    assert inputs[0].grad is not None
    assert inputs[1].grad is not None
    assert close(inputs[0].grad, inputs[1].grad)
