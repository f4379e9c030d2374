"""What must not change while packs are attached, and where `serve` holds: an error, never other weights unnoticed."""

import contextvars
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dtscodec
from dtscodec.errors import ModelMismatchError, TaskError
from dtscodec.runtime.attached import Attached
from tests.runtime.helpers import Tasks, make_tasks


@pytest.fixture
def llama(tmp_path: Path) -> Tasks:
    tasks = make_tasks("llama", tmp_path, attachable=True)
    tasks.model.eval()
    return tasks


def logits(tasks: Tasks) -> Tensor:
    with torch.no_grad():
        return tasks.model(**tasks.inputs).logits  # type: ignore[no-any-return]


def stream(tasks: Tasks, attached: Attached, task: str) -> Iterator[Tensor]:
    with attached.serve(task):
        for _ in range(2):
            yield logits(tasks)


def test_generators_that_yield_inside_serve_by_turns_are_an_error(llama: Tasks) -> None:
    with dtscodec.attach(llama.model, llama.packs) as attached:
        one, two = (stream(llama, attached, task) for task in ("one", "two"))
        with pytest.raises(TaskError, match="a generator yielded meanwhile"):
            for _ in zip(one, two, strict=True):
                pass
        two.close()  # type: ignore[attr-defined]


def test_a_generator_that_goes_on_in_another_context_is_an_error(llama: Tasks) -> None:
    with dtscodec.attach(llama.model, llama.packs) as attached:
        steps = stream(llama, attached, "one")
        contexts = [contextvars.copy_context() for _ in range(3)]  # Web servers run each step in a thread.
        with pytest.raises(TaskError, match="a generator yielded meanwhile"):
            _ = [context.run(next, steps) for context in contexts]


def test_an_exception_inside_serve_ends_it(llama: Tasks) -> None:
    before = logits(llama)
    with dtscodec.attach(llama.model, llama.packs) as attached:
        with pytest.raises(ZeroDivisionError), attached.serve("one"), attached.serve("two"):
            raise ZeroDivisionError
        assert torch.equal(logits(llama), before)


def test_packs_that_are_detached_while_they_serve_are_an_error(llama: Tasks) -> None:
    attached = dtscodec.attach(llama.model, llama.packs)
    with pytest.raises(ModelMismatchError, match="got detached ones"), attached.serve("one"):
        attached.detach()


@pytest.mark.parametrize("has_base", [False, True], ids=["model", "checkpoint"])
def test_weights_that_were_written_since_are_an_error_until_they_are_the_bases_again(
    llama: Tasks, has_base: bool
) -> None:
    base = llama.base if has_base else None
    switcher = dtscodec.Switcher(llama.model, base, llama.packs)
    with dtscodec.attach(llama.model, {"one": llama.packs["one"]}, base) as attached:
        with attached.serve("one"):
            true = logits(llama)
        switcher.activate("two")
        with pytest.raises(ModelMismatchError, match="expected the base's values"), attached.serve("one"):
            pass
        switcher.deactivate()
        with attached.serve("one"):
            assert torch.equal(logits(llama), true)


def with_new_head(model: Any) -> None:
    model.lm_head = nn.Linear(model.config.hidden_size, model.config.vocab_size, bias=False)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (with_new_head, "expected the layer that the model had before"),
        (lambda model: model.resize_token_embeddings(200, mean_resizing=False), "that the model had before"),
        (lambda model: model.to(torch.float64), "expected the tensor that the model had before"),
    ],
    ids=["head", "vocabulary", "dtype"],
)
def test_layers_and_tensors_that_were_replaced_since_are_an_error(
    llama: Tasks, change: Callable[[Any], object], problem: str
) -> None:
    with dtscodec.attach(llama.model, llama.packs) as attached:
        change(llama.model)
        with pytest.raises(ModelMismatchError, match=problem), attached.serve("one"):
            pass


def gradient(tasks: Tasks, model: Any, is_inside: bool, attached: Attached) -> Tensor:
    model.train()
    embedded = tasks.plain.get_input_embeddings()(tasks.inputs["input_ids"]).detach().requires_grad_()
    with attached.serve("one"):
        loss = model(inputs_embeds=embedded).logits.square().mean()
        if is_inside:
            loss.backward()
    if not is_inside:
        loss.backward()
    found: Tensor = embedded.grad
    return found


@pytest.mark.filterwarnings("ignore::FutureWarning")  # transformers deprecates one of them.
@pytest.mark.parametrize("is_reentrant", [True, False])
def test_layers_that_a_backward_pass_runs_again_must_run_inside_serve(llama: Tasks, is_reentrant: bool) -> None:
    with dtscodec.attach(llama.model, llama.packs) as attached:
        true = gradient(llama, llama.model, False, attached)
        llama.model.gradient_checkpointing_enable({"use_reentrant": is_reentrant})
        torch.testing.assert_close(gradient(llama, llama.model, True, attached), true)
        with pytest.raises(ModelMismatchError, match="call backward inside serve"):
            gradient(llama, llama.model, False, attached)


class Logits(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        return self.model(input_ids=ids, use_cache=False).logits  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch deprecates trace.
@pytest.mark.parametrize("record", [torch.jit.trace, torch.export.export], ids=["trace", "export"])
@pytest.mark.parametrize("is_inside", [True, False], ids=["inside serve", "outside of it"])
def test_a_model_with_attached_packs_is_not_recorded(llama: Tasks, record: Any, is_inside: bool) -> None:
    ids = llama.inputs["input_ids"]
    with (
        dtscodec.attach(llama.model, llama.packs) as attached,
        pytest.raises(ModelMismatchError, match="without attached packs to trace or export"),
        attached.serve("one") if is_inside else nullcontext(),
    ):
        record(Logits(llama.model), (ids,))


def test_code_that_registers_a_parameter_anew_is_an_error_inside_serve(llama: Tasks) -> None:
    layer = llama.model.lm_head
    with dtscodec.attach(llama.model, llama.packs) as attached:
        with attached.serve("one"), pytest.raises(ModelMismatchError, match=r"weight: .* run it outside of serve"):
            nn.Linear(4, 4).weight = layer.weight
        nn.Linear(4, 4).weight = layer.weight
