"""Switching in place: the weights are those of `decode`, the base is restored, and no other memory is written."""

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dtscodec
from dtscodec.checkpoints.base import Base
from dtscodec.errors import BaseMismatchError, DtsError, ModelMismatchError, TaskError
from dtscodec.format.blocks import BaseRows, Same
from dtscodec.format.content_digest import base_digest
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.index import TensorEntry
from dtscodec.format.streams import Streams
from dtscodec.format.summary import BaseRef, Summary
from dtscodec.format.writer import PackWriter
from dtscodec.kernels.cpu import Cpu
from tests.runtime.helpers import Tasks, same_state
from tests.support import check_against_spec, make_pack

Use = Callable[[Any, Any], object]


def expected(tasks: Tasks, task: str) -> dict[str, torch.Tensor]:
    return tasks.model_of(task).state_dict()  # type: ignore[no-any-return]


def test_a_task_equals_decode_bit_for_bit_and_the_base_is_restored(switchable: Tasks) -> None:
    before = switchable.state()
    switcher = dtscodec.Switcher(switchable.model, packs=switchable.packs)
    for task in ("one", "two", "two", "one"):
        switcher.activate(task)
        assert switcher.active == task
        assert same_state(switchable.model.state_dict(), expected(switchable, task))
    switcher.deactivate()
    assert switcher.active is None
    assert same_state(switchable.model.state_dict(), before)


def test_apply_equals_decode_bit_for_bit(switchable: Tasks) -> None:
    model = copy.deepcopy(switchable.model)
    dtscodec.apply_(model, switchable.packs["one"])
    assert same_state(model.state_dict(), expected(switchable, "one"))


def test_outputs_are_those_of_the_decoded_checkpoint(switchable: Tasks) -> None:
    model = copy.deepcopy(switchable.model).eval()
    dtscodec.Switcher(model, packs=switchable.packs).activate("two")
    with torch.no_grad():
        ours = model(**switchable.inputs).logits
        assert torch.equal(ours, switchable.model_of("two").eval()(**switchable.inputs).logits)


def test_parameters_stay_the_same_objects_so_optimizers_and_ties_hold(switchable: Tasks) -> None:
    model = copy.deepcopy(switchable.model)

    def identities() -> dict[str, object]:
        named = model.named_parameters(remove_duplicate=False)
        return {name: (id(p), p.data_ptr(), p.requires_grad, p.grad) for name, p in named}

    before = identities()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    switcher = dtscodec.Switcher(model, packs=switchable.packs)
    switcher.activate("one")
    assert identities() == before
    name, parameter = next(iter(model.named_parameters()))
    parameter.grad = torch.ones_like(parameter)
    held = parameter.detach().clone()
    optimizer.step()
    assert torch.equal(model.get_parameter(name), held - 1)


def test_a_compiled_function_sees_the_task(bert: Tasks) -> None:
    compiled: Any = torch.compile(bert.model.classifier, backend="eager")
    x = torch.randn(2, 64)
    switcher = dtscodec.Switcher(bert.model, packs=bert.packs)
    with torch.no_grad():
        base = compiled(x)
        switcher.activate("one")
        assert torch.equal(compiled(x), bert.model.classifier(x))
        assert not torch.equal(compiled(x), base)


def test_only_tensors_that_a_task_changes_are_written(bert: Tasks, tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in bert.base.items()}
    state["encoder.layer.0.output.dense.weight"] += 0.1
    make_pack(bert.base, state, tmp_path / "small")
    switcher = dtscodec.Switcher(bert.model.bert, packs={"small": tmp_path / "small"})
    versions = {name: parameter._version for name, parameter in bert.model.bert.named_parameters()}
    switcher.activate("small")
    changed = [name for name, p in bert.model.bert.named_parameters() if p._version != versions[name]]
    assert changed == ["encoder.layer.0.output.dense.weight"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_a_model_of_another_dtype_than_the_base_needs_the_base(bert: Tasks, dtype: torch.dtype) -> None:
    model = copy.deepcopy(bert.model).to(dtype)
    with pytest.raises(BaseMismatchError, match="in their own dtype, or give the base"):
        dtscodec.Switcher(model, packs=bert.packs)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    switcher = dtscodec.Switcher(model, bert.base, bert.packs)
    for task in ("one", "two"):
        switcher.activate(task)
        wanted = {name: tensor.to(dtype) for name, tensor in expected(bert, task).items()}
        assert same_state({name: model.state_dict()[name] for name in wanted}, wanted)
    switcher.deactivate()
    assert same_state(model.state_dict(), before)
    applied = copy.deepcopy(bert.model).to(dtype)
    dtscodec.apply_(applied, bert.packs["two"], bert.base)
    assert same_state(applied.state_dict(), wanted)


def test_tensors_of_other_strides_are_written_in_place(tmp_path: Path) -> None:
    model: Any = nn.Conv2d(16, 32, 3)
    model.to(memory_format=torch.channels_last)
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fine = {name: tensor + torch.randn(tensor.shape) * 0.1 for name, tensor in base.items()}
    pack = make_pack(base, fine, tmp_path / "pack", target=dtscodec.Rank(4)).path
    stride, memory = model.weight.stride(), model.weight.data_ptr()
    switcher = dtscodec.Switcher(model, packs={"task": pack})
    switcher.activate("task")
    with dtscodec.decode(pack, base) as decoded:
        assert same_state(model.state_dict(), dict(decoded))
    assert (model.weight.stride(), model.weight.data_ptr()) == (stride, memory)
    switcher.deactivate()
    assert same_state(model.state_dict(), base)


def test_an_expanded_tensor_is_refused(tmp_path: Path) -> None:
    model = nn.Linear(64, 8, bias=False)
    model.weight = nn.Parameter(torch.randn(1, 64).expand(8, 64))
    base = {"weight": model.weight.detach().contiguous()}
    pack = make_pack(base, {"weight": torch.randn(8, 64)}, tmp_path / "pack", target=dtscodec.RankShare(1.0)).path
    with pytest.raises(ModelMismatchError, match="weight: expected memory of its own for each element"):
        dtscodec.apply_(model, pack)
    model.weight = nn.Parameter(model.weight.detach().contiguous())
    dtscodec.apply_(model, pack)


def test_a_model_made_for_inference_only_can_be_switched(bert: Tasks) -> None:
    with torch.inference_mode():
        model = nn.Linear(64, 64)
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fine = {name: tensor + 0.1 for name, tensor in base.items()}
    with dtscodec.open(make_pack(base, fine, bert.packs["one"].with_name("linear")).path) as pack:
        switcher = dtscodec.Switcher(model, packs={"task": pack})
    switcher.activate("task")
    with torch.inference_mode():
        switcher.deactivate()
        switcher.activate("task")
    assert not torch.equal(model.weight, base["weight"])


def test_tied_weights_are_written_once(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(80, 64)
            self.head = nn.Linear(64, 80, bias=False)
            self.head.weight = self.embed.weight

    model = Tied()
    base = {"embed.weight": model.embed.weight.detach().clone()}
    fine = {"embed.weight": base["embed.weight"] + 0.1}
    pack = make_pack(base, {**fine, "head.weight": fine["embed.weight"]}, tmp_path / "pack").path
    version = model.embed.weight._version
    dtscodec.Switcher(model, packs={"task": pack}).activate("task")
    assert model.embed.weight._version == version + 1
    assert model.head.weight is model.embed.weight


def test_weights_that_the_fine_tune_untied_are_refused_by_a_tied_model(tmp_path: Path) -> None:
    model: Any = nn.ModuleDict({"a": nn.Linear(64, 64, bias=False), "b": nn.Linear(64, 64, bias=False)})
    model["b"].weight = model["a"].weight
    base = {"a.weight": model["a"].weight.detach().clone(), "b.weight": model["a"].weight.detach().clone()}
    fine = {"a.weight": base["a.weight"] + 0.1, "b.weight": base["b.weight"] - 0.1}
    pack = make_pack(base, fine, tmp_path / "pack").path
    with pytest.raises(ModelMismatchError, match=r"got a\.weight and b\.weight; load the model untied"):
        dtscodec.Switcher(model, packs={"task": pack})


def test_autocast_does_not_keep_the_old_task(tmp_path: Path) -> None:
    model = nn.Linear(64, 64)
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pack = make_pack(base, {name: tensor + 1 for name, tensor in base.items()}, tmp_path / "pack").path
    switcher, x = dtscodec.Switcher(model, packs={"task": pack}), torch.ones(2, 64)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        before = model(x)
        switcher.activate("task")
        assert (model(x) - before).mean() > 60


def test_rows_that_are_made_from_other_rows_of_the_same_tensor(tmp_path: Path) -> None:
    base = {"weight": torch.randn(10, 64)}
    blocks = (Same(5, BaseRows("weight", 5)), Same(5, BaseRows("weight", 0)))
    entry = TensorEntry("weight", TensorSpec("F32", (10, 64)), blocks)
    with Base(base) as source, open(tmp_path / "pack", "w+b") as file, PackWriter("F32", tmp_path) as writer:
        writer.add(entry, [Streams(), Streams()])
        leaves = {"weight": source.leaf("weight")}
        summary = Summary(1, base=BaseRef(base_digest(leaves).hex()))
        writer.write(file, summary, {name: leaf[:8] for name, leaf in leaves.items()})
    check_against_spec(tmp_path / "pack", base)
    uses: list[Callable[[Any], None]] = [
        lambda model: dtscodec.apply_(model, tmp_path / "pack"),
        lambda model: dtscodec.Switcher(model, packs={"task": tmp_path / "pack"}).activate("task"),
    ]
    for use in uses:
        model: Any = nn.Linear(64, 10, bias=False)
        model.load_state_dict(base)
        use(model)
        assert torch.equal(model.weight, base["weight"].roll(5, 0))


def test_weights_that_were_trained_meanwhile_are_no_base(bert: Tasks) -> None:
    switcher = dtscodec.Switcher(bert.model, packs={"one": bert.packs["one"]})
    switcher.remove("one")
    name = next(name for name, _ in bert.model.named_parameters() if "classifier" not in name)
    attached = dtscodec.attach(bert.model, {"one": bert.packs["one"]})
    attached.remove("one")
    with torch.no_grad():
        bert.model.get_parameter(name).add_(1)
    with pytest.raises(BaseMismatchError, match="expected a leaf"):
        attached.add("two", bert.packs["two"])
    attached.detach()


def test_a_weight_that_was_untied_meanwhile_is_detected(tmp_path: Path) -> None:
    model: Any = nn.ModuleDict({"a": nn.Linear(64, 64, bias=False), "b": nn.Linear(64, 64, bias=False)})
    model["b"].weight = model["a"].weight
    base = {"a.weight": model["a"].weight.detach().clone()}
    pack = make_pack(base, {"a.weight": base["a.weight"] + 0.1}, tmp_path / "pack").path
    switcher = dtscodec.Switcher(model, packs={"task": pack})
    model["b"].weight = nn.Parameter(model["a"].weight.detach().clone())
    with pytest.raises(ModelMismatchError, match="expected the tensor that the model had before"):
        switcher.activate("task")


def test_a_closed_switcher_takes_no_more_tasks(bert: Tasks) -> None:
    switcher = dtscodec.Switcher(bert.model, bert.base, {"one": bert.packs["one"]})
    switcher.close()
    with pytest.raises(ModelMismatchError, match="got a closed one"):
        switcher.add("two", bert.packs["two"])
    switcher.activate("one")
    assert same_state(bert.model.state_dict(), expected(bert, "one"))


# Failures


def fails_at(monkeypatch: pytest.MonkeyPatch, call: int, error: BaseException, times: int = 1) -> None:
    """Let the n-th reconstruction of a matrix fail, and those that follow, a number of times in all."""
    calls = iter(range(1, 10**6))
    original = Cpu.reconstruct

    def reconstruct(self: Cpu, *arguments: Any) -> None:
        if call <= next(calls) < call + times:
            raise error
        original(self, *arguments)

    monkeypatch.setattr(Cpu, "reconstruct", reconstruct)


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()], ids=["memory", "interrupt"])
@pytest.mark.parametrize("start", [None, "one"])
@pytest.mark.parametrize("call", [1, 3, 6])
def test_a_failure_in_the_middle_leaves_the_old_task_active(
    bert: Tasks, monkeypatch: pytest.MonkeyPatch, error: BaseException, start: str | None, call: int
) -> None:
    switcher = dtscodec.Switcher(bert.model, packs=bert.packs)
    if start:
        switcher.activate(start)
    before = bert.state()
    fails_at(monkeypatch, call, error)
    with pytest.raises(type(error)):
        switcher.activate("two")
    assert switcher.active == start
    assert same_state(bert.model.state_dict(), before)
    switcher.activate("two")
    assert same_state(bert.model.state_dict(), expected(bert, "two"))


def with_other_weights(tasks: Tasks) -> Any:
    model = copy.deepcopy(tasks.model)
    with torch.no_grad():
        model.bert.pooler.dense.weight[3, 4] += 1e-3
    return model


USES: dict[str, Use] = {
    "Switcher": lambda model, packs: dtscodec.Switcher(model, packs=packs),
    "attach": lambda model, packs: dtscodec.attach(model, packs),
    "apply_": lambda model, packs: dtscodec.apply_(model, packs["one"]),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_model_that_is_not_the_base_is_refused_and_stays_as_it_is(bert: Tasks, use: Use) -> None:
    model = with_other_weights(bert)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(BaseMismatchError, match=r"pooler\.dense\.weight.*expected a leaf"):
        use(model, bert.packs)
    assert same_state(model.state_dict(), before)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_model_without_a_tensor_that_the_fine_tune_changes_is_refused(bert: Tasks, use: Use) -> None:
    with pytest.raises(
        ModelMismatchError, match=r"classifier\.(bias|weight): expected a tensor of this name in the model"
    ):
        use(bert.model.bert, bert.packs)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_damaged_pack_is_refused(bert: Tasks, use: Use) -> None:
    data = bytearray(bert.packs["one"].read_bytes())
    data[len(data) // 2] ^= 1
    before = bert.state()
    with pytest.raises(DtsError, match="checksum"):
        use(bert.model, {"one": bytes(data)})
    assert same_state(bert.model.state_dict(), before)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_model_without_weights_is_refused(bert: Tasks, use: Use) -> None:
    with torch.device("meta"):
        model = type(bert.model)(bert.model.config)
    with pytest.raises(DtsError, match="load the weights first"):
        use(model, bert.packs)


def test_a_wrong_base_beside_the_model_is_refused(bert: Tasks) -> None:
    wrong = {name: tensor + 1 for name, tensor in bert.base.items()}
    with pytest.raises(BaseMismatchError, match="name the base that the pack was made against"):
        dtscodec.Switcher(bert.model, wrong, bert.packs)
    with pytest.raises(ModelMismatchError, match="expected the base's values"):
        dtscodec.Switcher(with_other_weights(bert), bert.base, bert.packs)


def test_known_names_for_new_tasks_and_unknown_names_are_errors(bert: Tasks) -> None:
    switcher = dtscodec.Switcher(bert.model, packs=bert.packs)
    switcher.activate("one")
    before = bert.state()
    mistakes: list[Callable[[], None]] = [
        lambda: switcher.activate("three"),
        lambda: switcher.remove("three"),
        lambda: switcher.remove("one"),
        lambda: switcher.add("two", bert.packs["one"]),
    ]
    for act in mistakes:
        with pytest.raises(TaskError, match="expected"):
            act()
        assert (switcher.active, switcher.tasks) == ("one", ("one", "two"))
        assert same_state(bert.model.state_dict(), before)
    with pytest.raises(KeyError, match=r"'three': expected one of the tasks \['one', 'two'\]"):
        switcher.activate("three")
    switcher.activate("two")
    switcher.remove("one")
    assert switcher.tasks == ("two",)


def test_a_task_may_be_added_while_another_is_active(bert: Tasks) -> None:
    before = bert.state()
    switcher = dtscodec.Switcher(bert.model, packs={"one": bert.packs["one"]})
    switcher.activate("one")
    switcher.add("two", bert.packs["two"])
    switcher.activate("two")
    assert same_state(bert.model.state_dict(), expected(bert, "two"))
    switcher.deactivate()
    assert same_state(bert.model.state_dict(), before)


def test_tensors_that_the_model_replaced_are_detected(bert: Tasks) -> None:
    switcher = dtscodec.Switcher(bert.model, packs=bert.packs)
    bert.model.to(torch.float64)
    before = bert.state()
    with pytest.raises(ModelMismatchError, match="expected the tensor that the model had before"):
        switcher.activate("one")
    assert same_state(bert.model.state_dict(), before)


def test_memory_is_reported_for_each_pack(bert: Tasks) -> None:
    switcher = dtscodec.Switcher(bert.model, packs=bert.packs)
    for task, size in switcher.memory().items():
        assert 0.5 < size / bert.packs[task].stat().st_size < 1.5


def test_many_threads_may_switch(bert: Tasks) -> None:
    switcher = dtscodec.Switcher(bert.model, packs=bert.packs)
    wanted = {task: expected(bert, task) for task in bert.packs}

    def work(task: str) -> None:
        for _ in range(20):
            switcher.activate(task)

    threads = [threading.Thread(target=work, args=(task,)) for task in bert.packs for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert switcher.active is not None
    assert same_state(bert.model.state_dict(), wanted[switcher.active])


def test_where_the_old_task_cannot_be_restored_active_is_an_error_until_a_switch_succeeds(
    bert: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    switcher = dtscodec.Switcher(bert.model, packs=bert.packs)
    switcher.activate("one")
    with monkeypatch.context() as failing:
        fails_at(failing, 3, MemoryError("full"), times=10**6)
        with pytest.raises(MemoryError):
            switcher.activate("two")
    with pytest.raises(ModelMismatchError, match="expected the weights of one task, got a mixture"):
        assert switcher.active
    switcher.activate("one")
    assert switcher.active == "one"
    assert same_state(bert.model.state_dict(), expected(bert, "one"))
    switcher.deactivate()
    assert same_state(bert.model.state_dict(), dict(bert.plain.state_dict()))
