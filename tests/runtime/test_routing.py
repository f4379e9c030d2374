"""Rows that name no task: each layer chooses by prototypes as defined, row by row."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

import dtscodec
from dtscodec.activations.gram_file import GramFile, save_grams
from dtscodec.calibration.gram_collector import collect_grams
from dtscodec.errors import CheckpointError, ConfigError, ModelMismatchError, TaskError
from dtscodec.runtime.branches.branch_for_layer import branch_class
from dtscodec.runtime.branches.linear import Conv1DBranch, LinearBranch
from dtscodec.runtime.routing import LayerRouter
from tests.runtime.helpers import Tasks, make_tasks
from tests.runtime.test_attach import close, heads
from tests.support import make_pack

ROWS = 6


@pytest.fixture(scope="module", params=["bert", "llama", "gpt2", "vit"])
def tasks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tasks:
    made = make_tasks(request.param, tmp_path_factory.mktemp(request.param), attachable=True)
    random = torch.Generator().manual_seed(7)
    for name, tensor in made.inputs.items():
        shape = (ROWS, *tensor.shape[1:])
        is_ids = not tensor.is_floating_point()
        made.inputs[name] = (
            torch.randint(3, 160, shape, generator=random) if is_ids else torch.randn(shape, generator=random)
        )
    made.model.eval(), made.plain.eval()
    return made


@pytest.fixture
def small_bert(tmp_path: Path) -> Tasks:
    made = make_tasks("bert", tmp_path, attachable=True)
    made.model.eval()
    return made


def linears(model: Any) -> Iterator[tuple[str, Any, bool]]:
    """Names of weights, layers, and whether the weight is [in, out]; without BERT's and ViT's heads."""
    for name, module in model.named_modules():
        if (kind := branch_class(module)) in (LinearBranch, Conv1DBranch) and name != "classifier":
            yield f"{name}.weight", module, kind is Conv1DBranch


def random_prototypes(model: Any, *names: str, seed: int = 1) -> dict[str, dict[str, Tensor]]:
    random = torch.Generator().manual_seed(seed)
    return {
        task: {
            name: torch.randn(layer.weight.shape[0 if transposed else 1], generator=random)
            for name, layer, transposed in linears(model)
        }
        for task in names
    }


class Naive(nn.Module):
    """A linear layer by the definition: for each row the mean over tokens, the best cosine, that task's own weights."""

    def __init__(
        self, prototypes: list[Tensor], own: list[tuple[Tensor, Tensor | None]], mask: Tensor | None = None
    ) -> None:
        super().__init__()
        self.prototypes, self.own, self.mask = prototypes, own, mask

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.row(x[i], None if self.mask is None else self.mask[i]) for i in range(len(x))])

    def row(self, x: Tensor, mask: Tensor | None) -> Tensor:
        tokens = x.reshape(-1, x.shape[-1]).double()
        if mask is not None and x.shape[:-1] == mask.shape:
            tokens = tokens[mask.bool()]
        mean = tokens.mean(0)
        cosines = [float(torch.cosine_similarity(mean, p.double(), dim=0)) for p in self.prototypes]
        weight, bias = self.own[cosines.index(max(cosines))]
        return x @ weight.T + (0 if bias is None else bias)


def naive(tasks: Tasks, prototypes: dict[str, dict[str, Tensor]], mask: Tensor | None = None) -> Any:
    """A model of the base whose layers with prototypes route by the definition."""
    model = copy.deepcopy(tasks.plain)
    decoded = [dict(linears_of(tasks.model_of(task))) for task in prototypes]
    for name, _, _ in list(linears(model)):
        if all(name in found for found in prototypes.values()):
            parent, _, attribute = name.removesuffix(".weight").rpartition(".")
            rows = [found[name] for found in prototypes.values()]
            setattr(model.get_submodule(parent), attribute, Naive(rows, [own[name] for own in decoded], mask))
    return model


def linears_of(model: Any) -> Iterator[tuple[str, tuple[Tensor, Tensor | None]]]:
    for name, layer, transposed in linears(model):
        yield name, (layer.weight.T if transposed else layer.weight, layer.bias)


def test_every_layer_and_row_follows_the_definition(tasks: Tasks) -> None:
    prototypes = random_prototypes(tasks.model, "one", "two")
    with torch.no_grad(), dtscodec.attach(tasks.model, tasks.packs) as attached:
        router = attached.route(prototypes)
        with attached.routing(router) as routing:
            ours = tasks.model(**tasks.inputs).logits
        true = naive(tasks, prototypes)(**tasks.inputs).logits
    assert close(ours, true)
    assert set(routing.tasks) == set(router.layers)
    assert {task for chosen in routing.tasks.values() for task in chosen} == {"one", "two"}
    assert all(len(chosen) == ROWS for chosen in routing.tasks.values())


def test_layers_without_prototypes_of_all_tasks_stay_the_bases(tasks: Tasks) -> None:
    prototypes = random_prototypes(tasks.model, "one", "two")
    names = [name for name, _, _ in linears(tasks.model)]
    del prototypes["one"][names[0]], prototypes["two"][names[3]]
    with torch.no_grad(), dtscodec.attach(tasks.model, tasks.packs) as attached:
        router = attached.route(prototypes)
        with attached.routing(router):
            ours = tasks.model(**tasks.inputs).logits
        assert close(ours, naive(tasks, prototypes)(**tasks.inputs).logits)
    assert {names[0], names[3]} <= set(router.unrouted)
    assert not set(router.unrouted) & set(router.layers)
    changed = {name for name, tensor in tasks.model_of("one").state_dict().items() if not same(tasks, name, tensor)}
    named = {*router.unrouted, *router.layers, *(name.replace("weight", "bias") for name in router.layers)}
    assert changed <= named | {"lm_head.weight"}  # Another name of the embedding, in GPT-2 and here in Llama.


def same(tasks: Tasks, name: str, tensor: Tensor) -> bool:
    return torch.equal(tasks.plain.state_dict()[name], tensor)


def test_a_row_does_not_depend_on_the_others(tasks: Tasks) -> None:
    prototypes = random_prototypes(tasks.model, "one", "two", seed=2)
    with torch.no_grad(), dtscodec.attach(tasks.model, tasks.packs) as attached:
        router = attached.route(prototypes)
        with attached.routing(router) as together:
            all_rows = tasks.model(**tasks.inputs).logits
        for row in range(ROWS):
            with attached.routing(router) as alone:
                own = tasks.model(**{name: tensor[row : row + 1] for name, tensor in tasks.inputs.items()}).logits
            assert close(all_rows[row], own[0])
            assert {name: (chosen[row],) for name, chosen in together.tasks.items()} == alone.tasks


def test_padding_does_not_count(small_bert: Tasks) -> None:
    prototypes = random_prototypes(small_bert.model, "one", "two", seed=3)
    random = torch.Generator().manual_seed(4)
    lengths = [3, 9, 12, 5]
    mask = torch.tensor([[int(i < length) for i in range(12)] for length in lengths])
    ids = torch.randint(3, 160, mask.shape, generator=random)
    with torch.no_grad(), dtscodec.attach(small_bert.model, small_bert.packs) as attached:
        router = attached.route(prototypes)
        with attached.routing(router, mask) as padded:
            ours = small_bert.model(input_ids=ids, attention_mask=mask).logits
        assert close(ours, naive(small_bert, prototypes, mask)(input_ids=ids, attention_mask=mask).logits)
        for row, length in enumerate(lengths):
            with attached.routing(router) as alone:
                own = small_bert.model(input_ids=ids[row : row + 1, :length]).logits
            assert close(ours[row], own[0])
            assert {name: (chosen[row],) for name, chosen in padded.tasks.items()} == alone.tasks


SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 33), st.integers(1, 4), st.integers(0, 999))
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16])


@settings(deadline=None)
@given(SHAPES, DTYPES)
def test_the_chosen_task_has_the_largest_cosine_whatever_the_padding_holds(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    rows, tokens, width, count, seed = shape
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, tokens, width, generator=random).to(dtype)
    mask = torch.rand(rows, tokens, generator=random) < 0.7
    unit = nn.functional.normalize(torch.randn(count, width, generator=random), dim=1)
    routes = LayerRouter("layer.weight", unit)
    chosen = routes.choose(x, mask)
    for row in range(rows):
        mean = x[row][mask[row]].double().sum(0)
        cosines = torch.cosine_similarity(mean, unit.double(), dim=1)
        assert cosines[chosen[row]] >= cosines.max() - 1e-6
        assert routes.choose(x[row : row + 1], mask[row : row + 1]) == [chosen[row]]
        assert mask[row].any() or chosen[row] == 0
    assert routes.choose(x.masked_fill(~mask[:, :, None], float("nan")), mask) == chosen
    assert routes.choose(x[:, 0], None) == routes.choose(x[:, :1], None)


def test_of_equal_prototypes_the_first_tasks_is_taken(tasks: Tasks) -> None:
    found = random_prototypes(tasks.model, "any")["any"]
    with torch.no_grad(), dtscodec.attach(tasks.model, tasks.packs) as attached:
        for order in (["one", "two"], ["two", "one"]):
            router = attached.route({order[0]: found, order[1]: {name: 2 * mean for name, mean in found.items()}})
            with attached.routing(router) as routing:
                tasks.model(**tasks.inputs)
            assert {chosen for chosen in routing.tasks.values()} == {(order[0],) * ROWS}


def test_named_tasks_take_precedence_and_outside_the_model_is_the_base(tasks: Tasks) -> None:
    model, inputs = tasks.model, tasks.inputs
    with torch.no_grad(), dtscodec.attach(model, tasks.packs) as attached:
        router = attached.route(random_prototypes(model, "one", "two"))
        base = model(**inputs).logits
        with attached.serve("two"):
            two = model(**inputs).logits
        with attached.routing(router):
            routed = model(**inputs).logits
            with attached.serve("two"):
                assert torch.equal(model(**inputs).logits, two)
            with attached.serve([None] * ROWS):
                assert torch.equal(model(**inputs).logits, base)
            assert torch.equal(model(**inputs).logits, routed)
        assert not torch.equal(routed, two)
        assert torch.equal(model(**inputs).logits, base)
    assert torch.equal(model(**inputs).logits, base)
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(ModelMismatchError, match="attach them again"):
        attached.routing(router).__enter__()


def test_collected_gram_files_route_texts_to_their_own_fine_tune(small_bert: Tasks, tmp_path: Path) -> None:
    """Texts of different tasks share no word. The fine-tunes have the base's embeddings, as routed models do."""
    random = torch.Generator().manual_seed(8)
    words = {"one": (3, 70), "two": (90, 160)}
    files, means = {}, {}
    for task, (first, last) in words.items():
        batches = [{"input_ids": torch.randint(first, last, (8, 12), generator=random)} for _ in range(2)]
        fine = small_bert.model_of(task).eval()
        fine.bert.embeddings = small_bert.plain.bert.embeddings.eval()
        found = collect_grams(fine, batches)
        files[task] = tmp_path / f"{task}.safetensors"
        save_grams(files[task], found)
        means[task] = {name: found.grams[found.same.get(name, name)].mean for name in (*found.grams, *found.same)}
    ids = torch.cat([torch.randint(*words[task], (3, 12), generator=random) for task in ("two", "one")])
    with torch.no_grad(), dtscodec.attach(small_bert.model, small_bert.packs) as attached:
        outputs = []
        for prototypes in (files, means):
            router = attached.route(prototypes)  # type: ignore[arg-type]
            assert set(router.layers) == {name for name, _, _ in linears(small_bert.model)}
            assert "classifier.weight" in router.unrouted
            with attached.routing(router) as routing:
                outputs.append(small_bert.model(input_ids=ids).logits)
            assert set(list(routing.tasks.values())[:6]) == {("two", "two", "two", "one", "one", "one")}
    assert torch.equal(*outputs)


def test_a_file_may_have_means_only(tmp_path: Path) -> None:
    save_file({"a.weight#mean": torch.ones(3)}, tmp_path / "means", {"same": '{"b.weight": "a.weight"}'})
    with GramFile(tmp_path / "means") as grams:
        assert list(grams.means()) == ["a.weight", "b.weight"]
        assert all(mean.tolist() == [1, 1, 1] for mean in grams.means().values())
        assert grams.read("a.weight") is None


@pytest.mark.parametrize("rename", [lambda name: name.removeprefix("bert."), lambda name: f"model.{name}"])
def test_names_may_have_a_prefix_more_or_less(small_bert: Tasks, rename: Any) -> None:
    prototypes = random_prototypes(small_bert.model, "one", "two")
    renamed = {task: {rename(name): mean for name, mean in found.items()} for task, found in prototypes.items()}
    with dtscodec.attach(small_bert.model, small_bert.packs) as attached:
        assert attached.route(renamed).layers == attached.route(prototypes).layers


# Heads, and one decision for all layers


def test_heads_are_the_callers_choice_where_layers_decide_for_themselves(tmp_path: Path) -> None:
    model, packs = heads(tmp_path, {"one": 2, "two": 5}, target=dtscodec.Rank(4))
    x, p = torch.randn(4, 64), torch.randn(64)
    prototypes = {"one": {"0.weight": p, "1.weight": p}, "two": {"0.weight": -p, "1.weight": -p}}
    own = tuple("one" if float(row @ p) > 0 else "two" for row in x)
    with torch.no_grad(), dtscodec.attach(model, packs) as attached:
        router = attached.route(prototypes)
        assert router.layers == ("0.weight",)
        assert set(router.unrouted) == {"1.bias", "1.weight"}
        with attached.serve(own):
            hidden = model[0](x)
        with attached.routing(router) as routing:
            assert close(model(x), model[1](hidden))
        assert routing.tasks == {"0.weight": own}
        named = ["two", "one", None, "two"]
        with attached.serve(named) as batch:
            true = batch.outputs(model[1](hidden))
        with attached.routing(router, heads=named) as routing:
            ours = routing.outputs(model(x))
        assert [len(row) for row in ours] == [5, 2, 3, 5]
        assert all(close(a, b) for a, b in zip(ours, true, strict=True))
        with attached.routing(router, heads="two"):
            assert model(x).shape == (4, 5)


def test_in_the_scope_of_samples_the_first_layer_decides_for_all_and_for_heads(tmp_path: Path) -> None:
    model, packs = heads(tmp_path, {"one": 2, "two": 5}, target=dtscodec.Rank(4))
    x, p = torch.randn(4, 64), torch.randn(64)
    own = ["one" if float(row @ p) > 0 else "two" for row in x]
    with torch.no_grad(), dtscodec.attach(model, packs) as attached:
        router = attached.route({"one": {"0.weight": p}, "two": {"0.weight": -p}}, scope="sample")
        with attached.routing(router) as routing:
            ours = routing.outputs(model(x))
        with attached.serve(own) as batch:
            true = batch.outputs(model(x))
    assert routing.tasks == {"0.weight": tuple(own)}
    assert all(torch.equal(a, b) for a, b in zip(ours, true, strict=True))


def test_a_task_that_does_not_change_a_layer_can_be_chosen_there(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    packs = {}
    for task, layer in (("first", "0.weight"), ("second", "1.weight")):
        fine = {name: tensor + 0.1 * torch.ones(64) * (name == layer) for name, tensor in base.items()}
        packs[task] = make_pack(base, fine, tmp_path / task, target=dtscodec.Rank(2)).path
    linear: Any = model[0]
    x, mean = torch.rand(3, 64), torch.ones(64)
    prototypes = {"first": {"0.weight": mean, "1.weight": mean}, "second": {"0.weight": -mean, "1.weight": -mean}}
    with torch.no_grad(), dtscodec.attach(model, packs) as attached:
        router = attached.route(prototypes)
        assert router.layers == ("0.weight", "1.weight")
        positive, negative = linear(x), linear(-x)
        with attached.routing(router):
            assert not close(linear(x), positive)
            assert torch.equal(linear(-x), negative)


# What cannot be routed


def test_prototypes_that_do_not_fit_are_refused_in_one_line(small_bert: Tasks, tmp_path: Path) -> None:
    model = small_bert.model
    good = random_prototypes(model, "one", "two")
    name = next(iter(good["one"]))
    (tmp_path / "bad.safetensors").write_bytes(b"no file of tensors")
    with dtscodec.attach(model, small_bert.packs) as attached:
        cases: list[tuple[Any, type[Exception], str]] = [
            ({}, ModelMismatchError, "no task"),
            ({**good, "three": good["one"]}, TaskError, "'three'"),
            ({**good, "two": {}}, ModelMismatchError, "'two' 0"),
            ({**good, "two": {**good["two"], name: torch.ones(7)}}, ModelMismatchError, f"{name}.*64.*7"),
            ({**good, "two": {**good["two"], name: torch.ones(64, 64)}}, ModelMismatchError, name),
            ({**good, "two": {**good["two"], name: torch.full((64,), torch.inf)}}, ModelMismatchError, "finite"),
            ({**good, "two": tmp_path / "bad.safetensors"}, CheckpointError, "bad"),
        ]
        for prototypes, error, words in cases:
            with pytest.raises(error, match=words) as caught:
                attached.route(prototypes)
            assert "\n" not in str(caught.value)
        with pytest.raises(ConfigError, match="'token'"):
            attached.route(good, scope="token")  # type: ignore[arg-type]


def test_masks_that_do_not_fit_the_rows_are_refused(small_bert: Tasks) -> None:
    model, inputs = small_bert.model, small_bert.inputs
    with torch.no_grad(), dtscodec.attach(model, small_bert.packs) as attached:
        router = attached.route(random_prototypes(model, "one", "two"))
        with attached.routing(router, torch.ones(3, 16)), pytest.raises(ModelMismatchError, match="3 rows of the mask"):
            model(**inputs)
        with pytest.raises(ModelMismatchError, match=r"\[rows, tokens\]"):
            attached.routing(router, torch.ones(3)).__enter__()
        with attached.routing(router), pytest.raises(ModelMismatchError, match="first dimension"):
            model.bert.pooler.dense(torch.ones(64))
        with pytest.raises(TaskError):
            attached.routing(router, heads="three").__enter__()


def test_adding_and_removing_tasks_does_not_change_a_router(small_bert: Tasks) -> None:
    model, inputs = small_bert.model, small_bert.inputs
    prototypes = random_prototypes(model, "one", "two")
    with torch.no_grad(), dtscodec.attach(model, small_bert.packs) as attached:
        router = attached.route(prototypes)
        with attached.routing(router):
            before = model(**inputs).logits
        attached.remove("two")
        with attached.routing(router):
            assert torch.equal(model(**inputs).logits, before)
        with pytest.raises(TaskError):
            attached.route(prototypes)
