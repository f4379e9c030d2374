"""Packs made from checkpoints whose tensors transformers converts: into a model they go as transformers loads them."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import dtscodec
from dtscodec.errors import BaseMismatchError, ModelMismatchError, TaskError
from dtscodec.evaluation.weight_groups import WeightGroup
from dtscodec.runtime.model.converted_slots import slots_of_group
from dtscodec.runtime.model.slots import slots_of, writable, write_slot
from tests.converted_models import CONVERTED, save_as_published
from tests.models import delta_like
from tests.runtime.helpers import same_state
from tests.support import check_against_spec

TASKS = ("one", "two")


@dataclass
class Converted:
    """A base directory, packs of two fine-tunes by names on disk, one by names in memory, and the decoded models."""

    folder: Path
    model_class: Any
    expected: dict[str | None, dict[str, torch.Tensor]]

    def model(self, **how: Any) -> Any:
        return self.model_class.from_pretrained(self.folder / "base", **how)

    def pack(self, task: str) -> Path:
        return self.folder / f"pack_{task}"


def make_converted(kind: str, folder: Path, only: str = "") -> Converted:
    """Packs of a model of CONVERTED; `only` the parameters with this in their names are changed."""
    torch.manual_seed(0)
    built = CONVERTED[kind]().eval()
    save_as_published(built, folder / "base")
    found = Converted(folder, type(built), {})
    base = found.model()
    config = dtscodec.EncodeConfig(target=dtscodec.RankShare(0.2))
    found.expected[None] = base.state_dict()
    for seed, task in enumerate(TASKS, start=3):
        fine, random = copy.deepcopy(base), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in fine.named_parameters():
                if only in name:
                    parameter += delta_like(parameter, random)
        save_as_published(fine, folder / task)
        dtscodec.encode(folder / "base", folder / task, found.pack(task), config)
        with dtscodec.decode(found.pack(task), folder / "base") as decoded:
            decoded.save(folder / f"decoded_{task}")
        found.expected[task] = type(built).from_pretrained(folder / f"decoded_{task}").state_dict()
    dtscodec.encode(base.state_dict(), fine.state_dict(), found.pack("memory"), config)
    check_against_spec(found.pack("one"), folder / "base")
    return found


@pytest.fixture(scope="module", params=CONVERTED)
def converted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return make_converted(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def stacked(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return make_converted("stacked", tmp_path_factory.mktemp("stacked"))


def test_from_pretrained_and_apply_give_the_model_that_transformers_loads(converted: Converted) -> None:
    base, pack = converted.folder / "base", converted.pack("one")
    loaded = dtscodec.from_pretrained(base, pack, model_class=converted.model_class)
    assert same_state(loaded.state_dict(), converted.expected["one"])
    for source in (None, base):
        model = converted.model()
        dtscodec.apply_(model, pack, source)
        assert same_state(model.state_dict(), converted.expected["one"])


def test_a_switcher_gives_the_models_that_transformers_loads_and_the_base_again(converted: Converted) -> None:
    model = converted.model()
    switcher = dtscodec.Switcher(model, packs={task: converted.pack(task) for task in TASKS})
    for task in ("one", "two", "two", "one"):
        switcher.activate(task)
        assert same_state(model.state_dict(), converted.expected[task])
    switcher.deactivate()
    assert same_state(model.state_dict(), converted.expected[None])


def test_packs_by_names_on_disk_and_in_memory_can_be_switched(converted: Converted) -> None:
    model = converted.model()
    base = copy.deepcopy(model.state_dict())
    switcher = dtscodec.Switcher(model, packs={task: converted.pack(task) for task in ("memory", "one")})
    with dtscodec.decode(converted.pack("memory"), base) as decoded:
        in_memory = dict(decoded)
    for task in ("one", "memory", "one"):
        switcher.activate(task)
        assert same_state(model.state_dict(), in_memory if task == "memory" else converted.expected[task])
    switcher.deactivate()
    assert same_state(model.state_dict(), base)


@pytest.mark.parametrize(("old", "new"), [("one", "memory"), ("memory", "one")])
def test_a_failed_switch_between_names_on_disk_and_in_memory_leaves_the_old_task(
    stacked: Converted, monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    model = stacked.model()
    switcher = dtscodec.Switcher(model, packs={task: stacked.pack(task) for task in (old, new)})
    switcher.activate(old)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    calls = iter(range(10**6))

    def fail(*arguments: Any) -> None:
        if next(calls) == 12:
            raise MemoryError
        write_slot(*arguments)

    monkeypatch.setattr("dtscodec.runtime.switcher.write_slot", fail)
    with pytest.raises(MemoryError):
        switcher.activate(new)
    assert switcher.active == old
    assert same_state(model.state_dict(), before)


def test_a_model_of_another_dtype_gets_the_rounded_checkpoint(converted: Converted) -> None:
    model = converted.model(dtype=torch.bfloat16)
    switcher = dtscodec.Switcher(model, converted.folder / "base", {"one": converted.pack("one")})
    switcher.activate("one")
    switcher.close()
    rounded = converted.model_class.from_pretrained(converted.folder / "decoded_one", dtype=torch.bfloat16)
    assert same_state(model.state_dict(), rounded.state_dict())


def test_a_model_of_other_values_is_refused(converted: Converted) -> None:
    for name in converted.expected[None]:
        if any(part in name for part in ("experts", "qkv", "conv1d", "q_proj")):
            model = converted.model()
            model.state_dict()[name].view(-1)[-1] += 1
            with pytest.raises(BaseMismatchError, match="base-leaf"):
                dtscodec.apply_(model, converted.pack("one"))
            break


def test_other_names_of_a_tensor_are_refused_while_a_task_is_active(stacked: Converted) -> None:
    model = stacked.model()
    switcher = dtscodec.Switcher(model, packs={"one": stacked.pack("one")})
    switcher.activate("one")
    with pytest.raises(TaskError, match="got those of the task 'one'; call deactivate\\(\\) first"):
        switcher.add("memory", stacked.pack("memory"))
    switcher.add("two", stacked.pack("two"))
    switcher.deactivate()
    switcher.add("memory", stacked.pack("memory"))
    switcher.activate("two")
    assert same_state(model.state_dict(), stacked.expected["two"])


def test_a_model_inside_another_module_is_found(stacked: Converted) -> None:
    model = stacked.model()
    outer = torch.nn.ModuleDict({"inner": model})
    dtscodec.apply_(outer, stacked.pack("one"))
    assert same_state(model.state_dict(), stacked.expected["one"])


@pytest.mark.parametrize("wrap", ["whole", "each layer"])
def test_a_compiled_model_is_written(stacked: Converted, wrap: str) -> None:
    model: Any = stacked.model()
    if wrap == "whole":
        outer: Any = torch.compile(model, backend="eager")
    else:
        outer = model
        for place, layer in enumerate(model.model.layers):
            model.model.layers[place] = torch.compile(layer, backend="eager")
    before = [tensor.clone() for tensor in model.state_dict().values()]
    switcher = dtscodec.Switcher(outer, packs={"one": stacked.pack("one")})
    switcher.activate("one")
    assert all(map(torch.equal, model.state_dict().values(), stacked.expected["one"].values()))
    switcher.deactivate()
    assert all(map(torch.equal, model.state_dict().values(), before))


def test_a_tensor_of_which_the_model_has_no_view_is_converted_with_its_neighbours() -> None:
    """As where transformers permutes rows for another rotary embedding, and joins projections."""
    layer = torch.nn.Linear(3, 4, bias=False)

    def to_model(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"weight": torch.cat([tensors["a"], tensors["b"]]).flip(0)}

    def to_checkpoint(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return dict(zip("ab", tensors["weight"].flip(0).chunk(2), strict=True))

    group = WeightGroup(("a", "b"), ("weight",), "flip", to_model, to_checkpoint)
    slots = dict(slots_of_group(group, slots_of(layer)))
    assert not any(slot.is_whole or slot.is_in_place for slot in slots.values())
    neighbour, values = slots["a"].tensor.clone(), torch.rand(2, 3)
    with writable(slots.values()):
        slots["b"].write(values)
    assert torch.equal(slots["b"].tensor, values)
    assert torch.equal(slots["a"].tensor, neighbour)
    assert torch.equal(layer.weight[:2], values.flip(0))


def test_attach_refuses_changed_experts_in_one_line(stacked: Converted) -> None:
    with pytest.raises(
        ModelMismatchError, match=r"got a part of OlmoeExperts \(and \d+ more tensors refused\); use Switcher"
    ) as error:
        dtscodec.attach(stacked.model(), {"one": stacked.pack("one")})
    assert "\n" not in str(error.value)


def test_attach_takes_a_pack_that_leaves_the_experts_alone(tmp_path: Path) -> None:
    found = make_converted("stacked", tmp_path, only="self_attn")
    model, tokens = found.model().eval(), torch.arange(3, 19)[None]
    with torch.no_grad(), dtscodec.attach(model, {"one": found.pack("one")}) as attached, attached.serve("one"):
        ours = model(tokens).logits
    model.load_state_dict(found.expected["one"])
    with torch.no_grad():
        assert torch.allclose(ours, model(tokens).logits, atol=1e-4)
