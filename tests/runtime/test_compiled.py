"""`attach` and torch.compile in every order: each row of every run equals its own decoded model."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from torch import Tensor, nn

import dtscodec
from dtscodec.errors import ModelMismatchError
from dtscodec.runtime.attached import Attached
from tests.support import make_pack

TASKS = ("inner", "norms", "whole")
TOLERANCE = 1e-5
"""Of outputs, relative to the largest."""


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 24), nn.Linear(24, 16)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.down(torch.relu(self.up(self.norm(x))))
        return x + hidden


class Model(nn.Module):
    """Small, but with layers in a list, of which several share the code that is compiled for one."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.blocks = nn.Embedding(40, 16), nn.ModuleList([Block() for _ in range(2)])
        self.head = nn.Linear(16, 6)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(x)  # type: ignore[no-any-return]


class Setting:
    """A base, packs that change different layers of it, and the decoded models."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.base = Model().eval()
        state = {name: tensor.clone() for name, tensor in self.base.state_dict().items()}
        is_changed: dict[str, Callable[[str], bool]] = {
            "inner": lambda name: ".up." in name,
            "norms": lambda name: "norm" in name or "embed" in name,
            "whole": lambda name: True,
        }
        self.packs: dict[str, Path] = {}
        self.decoded: dict[str | None, Model] = {None: self.base}
        for task in TASKS:
            fine = {
                name: tensor + (0.3 * torch.randn(tensor.shape) if is_changed[task](name) else 0)
                for name, tensor in state.items()
            }
            self.packs[task] = make_pack(state, fine, folder / task, target=dtscodec.Rank(3)).path
            self.decoded[task] = copy.deepcopy(self.base)
            dtscodec.apply_(self.decoded[task], self.packs[task])

    def check(self, run: Callable[[Tensor], Tensor], tasks: Any, tokens: int) -> None:
        """Run a model on a row for each task, and compare with the decoded models."""
        rows = [tasks] * 2 if tasks is None or isinstance(tasks, str) else tasks
        ids = torch.arange(len(rows) * tokens).reshape(len(rows), tokens) * 7 % 40
        with torch.no_grad():
            ours = run(ids)
            for row, task in enumerate(rows):
                true = self.decoded[task](ids[row : row + 1])[0]
                assert float((ours[row] - true).abs().max()) <= TOLERANCE * float(true.abs().max()), (row, task)


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return Setting(tmp_path_factory.mktemp("packs"))


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compile_wrapped(model: Any, **options: Any) -> Any:
    return torch.compile(model, **options)


def compile_in_place(model: Any, **options: Any) -> Any:
    model.compile(**options)
    return model


def compile_forward(model: Any, **options: Any) -> Any:
    return torch.compile(model.forward, **options)


def compile_blocks_in_place(model: Any, **options: Any) -> Any:
    for block in model.blocks:
        block.compile(**options)
    return model


def compile_layers_in_place(model: Any, **options: Any) -> Any:
    for block in model.blocks:
        block.up.compile(**options)
        block.norm.compile(**options)
    return model


def compile_function(model: Any, **options: Any) -> Any:
    return torch.compile(lambda ids: model(ids) + 0.0, **options)


WAYS = [
    compile_wrapped,
    compile_in_place,
    compile_forward,
    compile_blocks_in_place,
    compile_layers_in_place,
    compile_function,
]
MIXES = [None, "inner", "whole", ["inner", "norms", None], ["whole", "inner", "whole", "norms"]]


@pytest.mark.parametrize("way", WAYS)
def test_a_model_that_was_compiled_and_run_before_serves_each_rows_task(setting: Setting, way: Any) -> None:
    model, other = copy.deepcopy(setting.base), copy.deepcopy(setting.base)
    # One way with gradients traced, as in the default backend; the others only guard in another place.
    backend = "aot_eager" if way is compile_in_place else "eager"
    run, run_other = way(model, backend=backend), way(other, backend=backend)
    setting.check(run_other, None, 3)
    setting.check(run, None, 3)
    attached = dtscodec.attach(model, setting.packs)
    for mix in MIXES:
        with attached.serve(mix) if mix else attached.serve([None, None]):
            setting.check(run, mix, 3)
    setting.check(run, None, 3)
    setting.check(run_other, None, 3)
    attached.detach()
    setting.check(run, None, 3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Inductor's own.
def test_the_default_backend_with_dynamic_shapes(setting: Setting) -> None:
    model = copy.deepcopy(setting.base)
    run: Any = torch.compile(model, dynamic=True)
    setting.check(run, None, 3)
    with dtscodec.attach(model, setting.packs) as attached:
        for tokens in (3, 5):
            with attached.serve(["inner", "whole", None]):
                setting.check(run, ["inner", "whole", None], tokens)
    setting.check(run, None, 3)


def test_a_whole_graph_is_refused_by_name(setting: Setting) -> None:
    model = copy.deepcopy(setting.base)
    run: Any = torch.compile(model, backend="eager", fullgraph=True)
    setting.check(run, None, 3)
    refused = pytest.raises(torch._dynamo.exc.Unsupported, match=r"dtscodec: .* use Switcher")
    with dtscodec.attach(model, setting.packs) as attached, attached.serve("inner"), refused:
        setting.check(run, "inner", 3)
    setting.check(run, None, 3)


class Orders(RuleBasedStateMachine):
    """Two instances of a model, each with at most two `Attached`, compiled, attached and run in any order."""

    setting: Setting

    @initialize()
    def start(self) -> None:
        torch._dynamo.reset()
        self.models = [copy.deepcopy(self.setting.base) for _ in range(2)]
        self.runs: list[Any] = list(self.models)
        self.attached: list[list[Attached]] = [[], []]

    @rule(which=st.integers(0, 1), way=st.sampled_from(WAYS[:4]))
    def compile(self, which: int, way: Any) -> None:
        self.runs[which] = way(self.models[which], backend="eager")

    @rule(which=st.integers(0, 1), tasks=st.sets(st.sampled_from(TASKS)))
    def attach(self, which: int, tasks: set[str]) -> None:
        if len(self.attached[which]) < 2:
            packs = {task: self.setting.packs[task] for task in sorted(tasks)}
            self.attached[which].append(dtscodec.attach(self.models[which], packs))

    @precondition(lambda self: any(self.attached))
    @rule(data=st.data(), task=st.sampled_from(TASKS))
    def add_or_remove(self, data: st.DataObject, task: str) -> None:
        one = data.draw(st.sampled_from([one for some in self.attached for one in some]))
        if task in one.tasks:
            one.remove(task)
        else:
            one.add(task, self.setting.packs[task])

    @precondition(lambda self: any(self.attached))
    @rule(data=st.data())
    def detach(self, data: st.DataObject) -> None:
        which = data.draw(st.sampled_from([i for i in range(2) if self.attached[i]]))
        self.attached[which].pop(data.draw(st.integers(0, len(self.attached[which]) - 1))).detach()

    @rule(which=st.integers(0, 1))
    def run_base(self, which: int) -> None:
        self.setting.check(self.runs[which], None, 3)

    @precondition(lambda self: any(one.tasks for some in self.attached for one in some))
    @rule(data=st.data())
    def serve(self, data: st.DataObject) -> None:
        which, one = data.draw(st.sampled_from([(i, one) for i in range(2) for one in self.attached[i] if one.tasks]))
        task = st.sampled_from([None, *one.tasks])
        mix = data.draw(st.sampled_from(one.tasks) | st.lists(task, min_size=2, max_size=2))
        with one.serve(mix):
            self.setting.check(self.runs[which], mix, 3)
            # The other instance of the class is not served.
            if not isinstance(mix, str):
                self.setting.check(self.runs[1 - which], None, 3)


def test_any_order_of_compile_attach_run_add_and_remove(setting: Setting) -> None:
    class Machine(Orders):
        pass

    Machine.setting = setting
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=12, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


# Code that does not call the layers


class Reader(nn.Module):
    """Reads the weights of its layers in various ways."""

    def __init__(self, read: Callable[["Reader", Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self, self.first(x))


READS: dict[str, Callable[[Reader, Tensor], Tensor]] = {
    "linear": lambda model, x: nn.functional.linear(x, model.second.weight, model.second.bias),
    "product": lambda model, x: x @ model.second.weight.T,
    "bias": lambda model, x: model.second(x) + model.second.bias,
    "cast": lambda model, x: x @ model.second.weight.to(torch.float64).float(),
    "forward": lambda model, x: model.second.forward(x),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("compiled", [False, True])
def test_code_that_reads_a_changed_weight_without_calling_the_layer_is_an_error(
    tmp_path: Path, read: Any, compiled: bool
) -> None:
    model = Reader(read)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    packs = {}
    for task, part in (("first", "first"), ("second", "second")):
        fine = {name: tensor + (0.1 if part in name else 0) for name, tensor in state.items()}
        packs[task] = make_pack(state, fine, tmp_path / task).path
    run: Any = torch.compile(model, backend="eager") if compiled else model
    x = torch.randn(2, 16)
    with torch.no_grad(), dtscodec.attach(model, packs) as attached:
        before = run(x)
        with attached.serve("second"), pytest.raises(ModelMismatchError, match=r"second\.(weight|bias): .* call the"):
            run(x)
        with attached.serve("first"):
            assert not torch.equal(run(x), before)  # It may read what no task changes.
        assert torch.equal(run(x), before)


def test_code_may_ask_for_the_dtype_and_shape_of_a_changed_weight(tmp_path: Path) -> None:
    def read(model: Reader, x: Tensor) -> Tensor:
        assert model.second.weight.shape == (16, 16)
        assert model.second.weight.device.type == "cpu"
        assert isinstance(model.second.weight, Tensor)
        return model.second(x.to(model.second.weight.dtype))  # type: ignore[no-any-return]

    model = Reader(read)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pack = make_pack(state, {name: tensor + 0.1 for name, tensor in state.items()}, tmp_path / "pack").path
    own, x = copy.deepcopy(model), torch.randn(2, 16)
    dtscodec.apply_(own, pack)
    with torch.no_grad(), dtscodec.attach(model, {"task": pack}) as attached, attached.serve("task"):
        assert torch.allclose(model(x), own(x), atol=1e-5)


def test_the_gradient_of_a_changed_weight_may_be_read(tmp_path: Path) -> None:
    model = Reader(READS["linear"])
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pack = make_pack(state, {name: tensor + 0.1 for name, tensor in state.items()}, tmp_path / "pack").path
    with dtscodec.attach(model, {"task": pack}) as attached, attached.serve("task"):
        model.first(torch.randn(2, 16)).sum().backward()
        assert model.first.weight.grad is not None
        assert model.second.weight.grad is None
