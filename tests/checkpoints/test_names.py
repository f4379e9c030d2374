import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtscodec.checkpoints.names.name_match import IDENTITY, Rule
from dtscodec.checkpoints.names.name_matching import best_rule, match_names
from dtscodec.errors import BaseMismatchError, EncodeError
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.naming import base_name

Specs = dict[str, TensorSpec]


def specs(**shapes: tuple[int, ...]) -> Specs:
    """Names (double underscores stand for dots) -> specs."""
    return {name.replace("__", "."): TensorSpec("F32", shape) for name, shape in shapes.items()}


def prefixed(prefix: str, names: Specs) -> Specs:
    return {prefix + name: spec for name, spec in names.items()}


BODY = specs(emb__w=(50, 8), layer__0__w=(8, 8), layer__0__b=(8,), layer__1__w=(8, 8), norm=(8,))


def test_equal_names_match() -> None:
    match = match_names(BODY, BODY)
    assert match.prefix == IDENTITY
    assert match.counterpart == {name: name for name in BODY}
    assert match.absent == ()


@pytest.mark.parametrize("prefix", ["bert.", "model.", "base_model.model."])
def test_leading_prefix_is_dropped(prefix: str) -> None:
    fine = prefixed(prefix, BODY) | specs(classifier__weight=(2, 8))
    match = match_names(fine, BODY)
    assert match.prefix == (prefix, "")
    assert match.counterpart == {prefix + name: name for name in BODY} | {"classifier.weight": None}


@pytest.mark.parametrize("prefix", ["bert.", "model.", "base_model.model."])
def test_leading_prefix_is_added(prefix: str) -> None:
    base = prefixed(prefix, BODY) | specs(lm_head__weight=(50, 8))
    match = match_names(BODY, base)
    assert match.prefix == ("", prefix)
    assert match.counterpart == {name: prefix + name for name in BODY}
    assert match.absent == ("lm_head.weight",)


def test_names_outside_the_prefix_stay_as_they_are() -> None:
    fine = prefixed("model.", BODY) | specs(lm_head=(50, 8))
    match = match_names(fine, BODY | specs(lm_head=(50, 8)))
    assert match.prefix == ("model.", "")
    assert match.counterpart["lm_head"] == "lm_head"


def test_identity_wins_ties() -> None:
    fine = specs(w=(4, 4), m__v=(4, 4))
    base = specs(w=(4, 4), v=(4, 4), m__v=(4, 4))
    assert best_rule(fine, base) == IDENTITY


def test_rule_that_makes_most_tensors_agree_wins() -> None:
    fine = prefixed("a.", BODY) | prefixed("b.", specs(norm=(8,)))
    assert best_rule(fine, BODY) == ("a.", "")


def test_shapes_decide_between_prefixes() -> None:
    small = {name: TensorSpec("F32", tuple(n // 2 for n in spec.shape)) for name, spec in BODY.items()}
    assert best_rule(prefixed("student.", BODY) | prefixed("teacher.", small), small) == ("teacher.", "")


def test_dtypes_do_not_matter() -> None:
    fine = {name: TensorSpec("BF16", spec.shape) for name, spec in prefixed("m.", BODY).items()}
    assert match_names(fine, BODY).prefix == ("m.", "")


def test_two_prefixes_that_fit_equally_are_an_error() -> None:
    fine = prefixed("encoder.", BODY) | prefixed("decoder.", BODY)
    with pytest.raises(EncodeError) as caught:
        match_names(fine, BODY)
    message = str(caught.value)
    assert all(word in message for word in ("'encoder.'", "'decoder.'", "5 tensors", "renames=[('decoder.', '')]"))
    # The remedy works.
    assert match_names(fine, BODY, [("decoder.", "")]).prefix == ("encoder.", "")


def test_ambiguity_is_solved_by_a_map() -> None:
    fine = prefixed("encoder.", BODY) | prefixed("decoder.", BODY)
    match = match_names(fine, BODY, [("encoder.", ""), ("decoder.", "")])
    assert match.counterpart == {name: name.split(".", 1)[1] for name in fine}
    assert match.prefix == IDENTITY


def test_counterpart_of_another_shape_is_still_one() -> None:
    fine = BODY | {"emb.w": TensorSpec("F32", (60, 8))}
    assert match_names(fine, BODY).counterpart["emb.w"] == "emb.w"


def test_absent_names_ascend_by_their_bytes() -> None:
    base = (
        BODY
        | specs(z=(1,), Z=(1,))
        | {"é": TensorSpec("F32", ()), "\U00010000": TensorSpec("F32", ()), "\uffff": TensorSpec("F32", ())}
    )
    assert match_names(BODY, base).absent == ("Z", "z", "é", "\uffff", "\U00010000")


def test_map_overrides_single_tensors_and_prefixes() -> None:
    base = BODY | specs(old__w=(8, 8))
    match = match_names(BODY, base, [("layer.1.w", "old.w"), ("layer.0.", "layer.1.")])
    assert match.counterpart["layer.1.w"] == "old.w"
    assert match.counterpart["layer.0.w"] == "layer.1.w"
    assert match.counterpart["layer.0.b"] is None
    assert match.absent == ("layer.0.b", "layer.0.w")


def test_longest_old_of_maps_counts() -> None:
    base = prefixed("x.", BODY) | specs(y=(8, 8))
    match = match_names(BODY, base, [("", "x."), ("layer.1.w", "y")])
    assert match.counterpart["layer.1.w"] == "y"
    assert match.counterpart["norm"] == "x.norm"


def test_map_leaves_the_other_names_to_the_prefix() -> None:
    fine = prefixed("m.", BODY) | specs(head=(2, 8))
    match = match_names(fine, BODY | specs(cls__w=(2, 8)), [("head", "cls.w")])
    assert match.prefix == ("m.", "")
    assert match.counterpart["head"] == "cls.w"


@pytest.mark.parametrize(
    ("renames", "words"),
    [
        ([("nothing.", "emb.")], "starts so"),
        ([("emb.w", "missing")], "'missing'"),
        ([("norm", "norm"), ("norm", "emb.w")], "again"),
        ([("layer.", "emb."), ("layer.0.", "layer.1."), ("layer.1.", "layer.0.")], "starts so"),
    ],
)
def test_map_without_effect_is_an_error(renames: list[tuple[str, str]], words: str) -> None:
    with pytest.raises(EncodeError, match=r"^renaming") as caught:
        match_names(BODY, BODY, renames)
    assert words in str(caught.value)


def test_base_of_other_names_is_another_architecture() -> None:
    with pytest.raises(BaseMismatchError) as caught:
        match_names(BODY, specs(conv__w=(8, 8, 3)))
    assert caught.value.reason == "base-tensor"
    assert all(word in str(caught.value) for word in ("0 of 5", "'emb.w'", "F32 [50, 8]", "the right base"))
    assert "renames" not in str(caught.value)


def test_base_of_other_sizes_is_another_architecture() -> None:
    base = {name: TensorSpec("F32", tuple(2 * n for n in spec.shape)) for name, spec in BODY.items()}
    with pytest.raises(BaseMismatchError) as caught:
        match_names(BODY, base)
    assert all(word in str(caught.value) for word in ("2 of 5", "F32 [50, 8]", "F32 [100, 16]"))


def test_half_of_the_elements_is_enough() -> None:
    fine = specs(a=(10, 4), b=(10, 4))
    assert match_names(fine, specs(a=(3, 4))).counterpart == {"a": "a", "b": None}
    with pytest.raises(BaseMismatchError):
        match_names(specs(a=(10, 4), b=(10, 5)), specs(a=(3, 4)))


def test_of_a_merged_base_half_of_its_own_elements_is_enough() -> None:
    fine = specs(embeddings=(100, 4), b=(10, 4))
    assert match_names(fine, specs(b=(10, 4)), is_merged=True).counterpart == {"embeddings": None, "b": "b"}
    with pytest.raises(BaseMismatchError):
        match_names(fine, specs(b=(10, 4), c=(11, 4)), is_merged=True)


def test_nothing_matches_anything() -> None:
    assert match_names({}, BODY).absent == tuple(sorted(BODY))


def naive(fine: Specs, base: Specs) -> dict[Rule, int]:
    """Count the agreeing tensors of every rule there could be, one by one."""
    prefixes = {name[: i + 1] for name in [*fine, *base] for i, c in enumerate(name) if c == "."}
    rules = {IDENTITY, *((p, "") for p in prefixes), *(("", p) for p in prefixes)}

    def agrees(rule: Rule, name: str) -> bool:
        other = base.get(base_name(name, rule))
        return other is not None and other.shape == fine[name].shape

    return {rule: sum(agrees(rule, name) for name in fine) for rule in rules}


NAMES = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(".".join) | st.sampled_from(
    [".", "a.", ".a", "a..b"]
)
SPEC_MAPS = st.dictionaries(NAMES, st.sampled_from([TensorSpec("F32", (2,)), TensorSpec("F32", (3,))]), max_size=8)


@given(SPEC_MAPS, SPEC_MAPS)
def test_best_rule_equals_the_plain_search(fine: Specs, base: Specs) -> None:
    counts = naive(fine, base)
    top = max(counts.values())
    best = [rule for rule, count in counts.items() if count == top]
    try:
        rule = best_rule(fine, base)
    except EncodeError:
        assert len(best) > 1
        assert IDENTITY not in best
    else:
        assert rule in best
        assert rule == IDENTITY or best == [rule]


@pytest.mark.parametrize("folder", ["0_Transformer/", "1_Router/document_0_Transformer/"])
def test_a_folder_of_modules_is_a_prefix_like_others(folder: str) -> None:
    dense = {"2_Dense/linear.weight": TensorSpec("F32", (3, 2))}
    inside = prefixed(folder, BODY) | dense
    assert match_names(inside, BODY).counterpart == {folder + name: name for name in BODY} | dict.fromkeys(dense)
    # The other way round, and with a module that both have.
    assert match_names(BODY, inside).counterpart == {name: folder + name for name in BODY}
    both = match_names(BODY | dense, inside).counterpart
    assert both == {name: folder + name for name in BODY} | {name: name for name in dense}


def test_100_000_names_are_matched_in_seconds() -> None:
    layers = {
        f"layers.{i}.experts.{j}.{kind}.weight": TensorSpec("F32", (4, 4))
        for i in range(60)
        for j in range(555)
        for kind in ("up", "down", "gate")
    }
    start = time.perf_counter()
    match = match_names(prefixed("model.language_model.", layers), layers)
    assert time.perf_counter() - start < 10
    assert match.prefix == ("model.language_model.", "")
