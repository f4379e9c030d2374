"""Counterparts that one prefix rule for all names does not find."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtscodec.checkpoints.names.name_matching import match_names, pair_names
from dtscodec.errors import BaseMismatchError, EncodeError
from dtscodec.format.dtypes import TensorSpec

Shapes = dict[str, tuple[int, ...]]
Specs = dict[str, TensorSpec]


def specs(*parts: Shapes) -> Specs:
    merged = {name: TensorSpec("F32", shape) for part in parts for name, shape in part.items()}
    return dict(sorted(merged.items()))


def language(prefix: str, width: int = 32, vocabulary: int = 100) -> Shapes:
    shapes: Shapes = {f"{prefix}embed_tokens.weight": (vocabulary, width), f"{prefix}norm.weight": (width,)}
    for i in range(2):
        layer = f"{prefix}layers.{i}."
        shapes |= {f"{layer}self_attn.{x}_proj.weight": (width, width) for x in "qkvo"}
        shapes |= {f"{layer}mlp.up_proj.weight": (2 * width, width), f"{layer}input_layernorm.weight": (width,)}
    return shapes


def vision(prefix: str) -> Shapes:
    shapes: Shapes = {f"{prefix}patch_embed.proj.weight": (16, 3, 4, 4)}
    return shapes | {f"{prefix}blocks.{i}.{x}.weight": (48, 16) for i in range(3) for x in ("attn.qkv", "mlp.fc1")}


HEAD: Shapes = {"lm_head.weight": (100, 32)}
PROJECTOR: Shapes = {"linear_1.weight": (32, 16), "linear_1.bias": (32,)}


def under(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}


VLMS = {
    "Qwen3-VL": (
        specs(language("model.language_model."), vision("model.visual."), HEAD),
        specs(language("model."), vision("visual."), HEAD),
    ),
    "LLaVA": (
        specs(
            language("model.language_model."),
            vision("model.vision_tower."),
            under("model.multi_modal_projector.", PROJECTOR),
            HEAD,
        ),
        specs(
            language("language_model.model."),
            vision("vision_tower."),
            under("multi_modal_projector.", PROJECTOR),
            under("language_model.", HEAD),
        ),
    ),
    "PaliGemma, tied": (
        specs(language("model.language_model."), vision("model.vision_tower.vision_model.")),
        specs(language("language_model.model."), vision("vision_tower.vision_model.")),
    ),
}


@pytest.mark.parametrize("is_reversed", [False, True])
@pytest.mark.parametrize("model", VLMS)
def test_every_tensor_of_a_vlm_finds_its_counterpart(model: str, is_reversed: bool) -> None:
    fine, base = VLMS[model][::-1] if is_reversed else VLMS[model]
    match = match_names(fine, base)
    assert match.absent == ()
    for name, other in match.counterpart.items():
        assert other is not None
        # The same module of the same tower.
        assert ("vis" in name) == ("vis" in other)
        assert name.split(".")[-2:] == other.split(".")[-2:]


def test_a_grown_vocabulary_is_matched_by_name() -> None:
    fine = specs(
        language("model.language_model.", vocabulary=108), vision("model.visual."), {"lm_head.weight": (108, 32)}
    )
    match = match_names(fine, VLMS["Qwen3-VL"][1])
    assert match.counterpart["model.language_model.embed_tokens.weight"] == "model.embed_tokens.weight"


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda name: f"module._orig_mod.{name}",
        lambda name: name.replace("mlp.", "_checkpoint_wrapped_module.mlp."),
        lambda name: name.replace("self_attn.", "self_attn._orig_mod."),
    ],
)
def test_components_of_wrappers_do_not_count(wrapped) -> None:  # type: ignore[no-untyped-def]
    base = specs(language("model."), HEAD)
    fine = dict(sorted((wrapped(name), spec) for name, spec in base.items()))
    assert match_names(fine, base).counterpart == {wrapped(name): name for name in base}
    assert match_names(base, fine).counterpart == {name: wrapped(name) for name in base}


def test_wrappers_of_fsdp_are_refused_in_a_fine_tune_and_do_not_count_in_a_base() -> None:
    model = specs(language("model."), HEAD)
    wrapped = {f"_fsdp_wrapped_module.{name.replace('mlp.', '_fsdp_wrapped_module.mlp.')}": name for name in model}
    with pytest.raises(EncodeError, match=r"remove '_fsdp_wrapped_module\.' from the names"):
        match_names({name: model[plain] for name, plain in wrapped.items()}, model)
    match = match_names(model, {name: model[plain] for name, plain in wrapped.items()})
    assert match.counterpart == {plain: name for name, plain in wrapped.items()}


def test_names_that_become_one_without_wrappers_keep_their_own() -> None:
    base = specs(language("model."))
    copies = {name.replace("model.", "model.module."): spec for name, spec in base.items()}
    match = pair_names(dict(sorted({**base, **copies}.items())), base)
    assert all(match.counterpart[name] == name for name in base)
    assert all(match.counterpart[name] is None for name in copies)


def t5(stack: str, is_decoder: bool) -> Shapes:
    shapes: Shapes = {f"{stack}.final_layer_norm.weight": (32,)}
    for i in range(2):
        blocks = ["0.SelfAttention", "1.EncDecAttention"] if is_decoder else ["0.SelfAttention"]
        shapes |= {f"{stack}.block.{i}.layer.{x}.{y}.weight": (32, 32) for x in blocks for y in "qkvo"}
        shapes |= {f"{stack}.block.{i}.layer.{len(blocks)}.DenseReluDense.wi.weight": (64, 32)}
    return shapes


def test_an_encoder_is_no_counterpart_of_a_decoder() -> None:
    shared: Shapes = {"shared.weight": (900, 32)}
    whole = specs(t5("encoder", False), t5("decoder", True), shared)
    encoder, decoder = specs(t5("encoder", False), shared), specs(t5("decoder", True), shared)
    for fine, base in ((whole, encoder), (encoder, whole), (encoder, decoder), (decoder, encoder)):
        match = pair_names(fine, base)
        assert all(other in (None, name) for name, other in match.counterpart.items())


@pytest.mark.parametrize("copy", ["ema.", "model_ema.", "model.ema."])
def test_an_averaged_copy_of_the_weights_has_no_counterpart(copy: str) -> None:
    base = specs(language("model."))
    match = pair_names(specs(language("model."), language(copy)), base)
    assert {name for name, other in match.counterpart.items() if other is None} == set(language(copy))


def test_two_equal_towers_of_the_base_are_named_as_alternatives() -> None:
    base = specs(language("query_encoder."), language("ctx_encoder."))
    with pytest.raises(BaseMismatchError) as caught:
        match_names(specs(language("encoder.")), base)
    assert all(word in str(caught.value) for word in ("'query_encoder.'", "'ctx_encoder.'", "renames=[("))


def test_two_rules_that_exclude_each_other_are_not_applied() -> None:
    base = specs(language("model.query.language."), language("model.document.language."))
    with pytest.raises((BaseMismatchError, EncodeError)) as caught:
        match_names(specs(language("model.language.")), base)
    assert all(word in str(caught.value) for word in ("query", "document", "renames"))


def test_a_rename_is_suggested_only_if_it_helps() -> None:
    fine = specs(language("decoder."))
    with pytest.raises(BaseMismatchError) as caught:
        match_names(fine, specs(language("generator.")))
    assert "renames=[('decoder.', 'generator.')]" in str(caught.value)
    assert (
        None not in match_names(fine, specs(language("generator.")), [("decoder.", "generator.")]).counterpart.values()
    )
    with pytest.raises(BaseMismatchError) as caught:
        match_names(fine, specs(language("decoder.", width=48)))
    assert "sizes do not" in str(caught.value)
    assert "renames" not in str(caught.value)


def test_an_adapter_in_place_of_a_model_is_named() -> None:
    adapter = specs({f"base_model.model.h.{i}.c_attn.lora_{x}.weight": (4, 32) for i in range(3) for x in "AB"})
    base = specs(language("model."))
    with pytest.raises(BaseMismatchError, match="import_adapter"):
        match_names(adapter, base)
    with pytest.raises(BaseMismatchError, match="the model that the adapter was trained on"):
        match_names(base, adapter)


PREFIXES = ("", "model.", "a.", "model.a.", "a.model.", "b.", "model.b.", "b.c.")
TOWERS = (language("", 32), vision(""), language("text.", 24))


@settings(deadline=None, max_examples=60)
@given(st.tuples(*[st.sampled_from(PREFIXES)] * 3), st.tuples(*[st.sampled_from(PREFIXES)] * 3))
def test_what_disjoint_rules_renamed_is_never_paired_with_another_meaning(
    ours: tuple[str, ...], theirs: tuple[str, ...]
) -> None:
    fine = specs(*(under(prefix, tower) for prefix, tower in zip(ours, TOWERS, strict=True)))
    base = specs(*(under(prefix, tower) for prefix, tower in zip(theirs, TOWERS, strict=True)))
    meaning = {b + name: a + name for tower, a, b in zip(TOWERS, ours, theirs, strict=True) for name in tower}
    try:
        match = pair_names(fine, base)
    except EncodeError:
        return
    for name, other in match.counterpart.items():
        assert other is None or meaning[other] == name


def experts(prefix: str, names: tuple[str, str, str], inner: int = 48, width: int = 32) -> Shapes:
    gate, up, down = names
    shapes: Shapes = {}
    for i in range(2):
        for e in range(3):
            expert = f"{prefix}layers.{i}.mlp.experts.{e}."
            shapes |= {f"{expert}{x}.weight": (inner, width) for x in (gate, up)}
            shapes |= {f"{expert}{down}.weight": (width, inner)}
    return shapes


def fused(prefix: str, inner: int = 48, width: int = 32) -> Shapes:
    shapes: Shapes = {}
    for i in range(2):
        shapes |= {f"{prefix}layers.{i}.mlp.experts.gate_up_proj": (3, 2 * inner, width)}
        shapes |= {f"{prefix}layers.{i}.mlp.experts.down_proj": (3, width, inner)}
    return shapes


OLMOE, MIXTRAL = ("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2")


@pytest.mark.parametrize("names", [OLMOE, MIXTRAL])
@pytest.mark.parametrize("prefix", ["model.", "model.language_model."])
def test_fused_experts_consist_of_split_ones_gate_before_up(names: tuple[str, str, str], prefix: str) -> None:
    base = specs(language("model."), experts("model.", names))
    match = match_names(specs(language(prefix), fused(prefix)), base)
    assert match.absent == ()
    parts = match.parts[f"{prefix}layers.1.mlp.experts.gate_up_proj"]
    expert = "model.layers.1.mlp.experts."
    wanted = [f"{expert}{e}.{x}.weight" for e in range(3) for x in names[:2]]
    assert [(part.name, part.first, part.height) for part in parts] == [(name, 0, 48) for name in wanted]


@pytest.mark.parametrize("names", [OLMOE, MIXTRAL])
def test_split_experts_are_rows_of_fused_ones(names: tuple[str, str, str]) -> None:
    base = specs(language("model."), fused("model."))
    match = match_names(specs(language("model."), experts("model.", names)), base)
    (part,) = match.parts[f"model.layers.0.mlp.experts.2.{names[1]}.weight"]
    assert (part.name, part.first, part.height) == ("model.layers.0.mlp.experts.gate_up_proj", 2 * 96 + 48, 48)


@pytest.mark.parametrize(("inner", "width"), [(48, 32), (16, 32), (32, 32)])
def test_transposed_experts_are_no_counterparts_even_where_shapes_agree(inner: int, width: int) -> None:
    def transposed(prefix: str) -> Shapes:
        return {name: (e, n, m) for name, (e, m, n) in fused(prefix, inner, width).items()}

    body = language("model.")
    for base in (fused("model.", inner, width), experts("model.", OLMOE, inner, width)):
        match = pair_names(specs(body, transposed("model.")), specs(body, base))
        assert not match.parts
        assert all(match.counterpart[name] is None for name in transposed("model."))
        assert set(match.transposed) == set(transposed("model."))


def test_a_layer_that_lacks_an_expert_is_not_fused() -> None:
    shapes = experts("model.", OLMOE)
    del shapes["model.layers.0.mlp.experts.1.up_proj.weight"]
    match = pair_names(specs(language("model."), fused("model.")), specs(language("model."), shapes))
    assert {name.split(".")[2] for name in match.parts if "gate_up" in name} == {"1"}


def test_a_removed_name_finds_the_counterpart_of_the_tensor_that_remains() -> None:
    body = language("model.")
    base = specs(body)
    fine = specs({name: shape for name, shape in body.items() if "embed" not in name}, HEAD)
    removed = {"model.embed_tokens.weight": "lm_head.weight"}
    match = match_names(fine, base, removed=removed)
    assert match.counterpart["lm_head.weight"] == "model.embed_tokens.weight"
    assert match.absent == ()
    # The other way round.
    match = match_names(base, fine, base_removed=removed)
    assert match.counterpart["model.embed_tokens.weight"] == "lm_head.weight"
    # A base that has both.
    match = match_names(fine, specs(body, HEAD), removed=removed)
    assert match.counterpart["lm_head.weight"] == "lm_head.weight"
    assert match.absent == ("model.embed_tokens.weight",)
    assert match.shared == {"model.embed_tokens.weight"}


def test_modules_renamed_within_each_layer_are_named_with_both_names() -> None:
    places = [(i, e, x) for i in range(4) for e in range(4) for x in "ab"]
    base = {f"layers.{i}.mlp.{e}.{x}.weight": TensorSpec("F32", (4, 2)) for i, e, x in places}
    fine = {name.replace("mlp", "moe"): spec for name, spec in base.items()}
    message = r"names differ, 'layers\.\*\.moe\.' as 'layers\.\*\.mlp\.' would fit; .*rename"
    with pytest.raises(BaseMismatchError, match=message):
        match_names(fine, base)
