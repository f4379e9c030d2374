"""Weights from how like tasks are, and the head that an unseen task brings."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import dtscodec
from dtscodec.errors import BaseMismatchError, CheckpointError, ConfigError, EncodeError
from dtscodec.fusion import HeadSimilarity, VectorSimilarity
from dtscodec.fusion.similarity import are_indistinct, cosines, head_vectors, normalize_similarities, task_vector
from tests.fusion.test_fuse import (
    AMPLE,
    State,
    base_state,
    body,
    decoded,
    error_to,
    fine_state,
    fuse,
    packs_of,
    weighted,
)
from tests.support import make_pack


def unit(*elements: float) -> Tensor:
    return torch.tensor(elements, dtype=torch.float32)


# Arithmetic


def test_weights_are_shares_of_clamped_cosines() -> None:
    assert normalize_similarities([0.5, 0.25, -0.9]) == pytest.approx((2 / 3, 1 / 3, 0))
    assert normalize_similarities([0.5, 0.25, -0.25], plain_sum=True) == pytest.approx((1, 0.5, -0.5))
    assert normalize_similarities([0.1]) == (1,)


@pytest.mark.parametrize("similarities", [[0.0, 0.0], [-0.5, -0.1], [-0.2]], ids=str)
def test_no_weights_where_nothing_is_alike(similarities: list[float]) -> None:
    for plain_sum in (False, True):
        with pytest.raises(ConfigError, match="`weights`"):
            normalize_similarities(similarities, plain_sum)


def test_no_weights_where_plain_cosines_cancel() -> None:
    with pytest.raises(ConfigError, match="cancel"):
        normalize_similarities([0.5, -0.5], plain_sum=True)
    with pytest.raises(ConfigError, match="cancel"):
        normalize_similarities([0.5, -0.499], plain_sum=True)
    assert normalize_similarities([0.5, -0.499]) == (1, 0)


def test_cosines_of_vectors_of_any_size() -> None:
    seen = [unit(2, 0), unit(0, 1e30), unit(-1e-40, 0), unit(1, 1), unit(0, 0)]
    assert cosines(unit(1e38, 0), seen) == pytest.approx((1, 0, -1, math.sqrt(0.5), 0), abs=1e-5)


@pytest.mark.parametrize("unseen", [unit(0, 0), unit(math.nan, 1), unit(math.inf, 1), unit(1), unit()], ids=str)
def test_vectors_without_an_angle_are_refused(unseen: Tensor) -> None:
    with pytest.raises(ConfigError, match="similarity"):
        cosines(unseen, [unit(1, 2)])


def test_classes_are_compared_by_their_mean_row() -> None:
    assert task_vector(torch.tensor([[1.0, 0], [0, 1]])).tolist() == pytest.approx([math.sqrt(0.5)] * 2)
    one, (other,) = head_vectors({"w": torch.ones(2, 3)}, [{"w": torch.ones(5, 3)}])
    assert cosines(one, [other]) == pytest.approx((1,))


def test_heads_of_one_shape_are_flattened_and_others_left_out() -> None:
    head = {"dense.weight": torch.ones(2, 2), "dense.bias": torch.zeros(2), "out.weight": torch.ones(3, 2)}
    other = head | {"out.weight": torch.ones(4, 2)}
    one, (two,) = head_vectors(head, [other])
    assert (len(one), len(two)) == (6, 6)
    with pytest.raises(ConfigError, match="of other shapes"):
        head_vectors({"w": torch.ones(2, 3)}, [{"w": torch.ones(2, 4)}])
    with pytest.raises(ConfigError, match="no tensor"):
        head_vectors({"w": torch.ones(2, 3)}, [{"v": torch.ones(2, 3)}])


# Heads


def fines_with(*heads: Tensor) -> list[State]:
    """Fine-tunes with these classifiers."""
    return [
        body(fine_state(seed)) | {"classifier.weight": head, "classifier.bias": torch.zeros(len(head))}
        for seed, head in enumerate(heads, 1)
    ]


def rows(*angles: float) -> Tensor:
    """A head of a row for each angle, in a plane of the 48 dimensions."""
    head = torch.zeros(len(angles), 48)
    for row, angle in zip(head, angles, strict=True):
        row[0], row[1] = math.cos(angle), math.sin(angle)
    return head


def test_weights_come_from_heads_and_the_head_is_stored_exactly(tmp_path: Path) -> None:
    packs = packs_of(tmp_path, fines_with(rows(0, 0), rows(math.pi / 2, math.pi / 2), rows(math.pi, math.pi)))
    like = {"classifier.weight": rows(math.pi / 3, math.pi / 3), "classifier.bias": torch.zeros(2)}
    report = fuse(tmp_path, packs, like=like, target=AMPLE)
    cosine = (math.cos(math.pi / 3), math.sin(math.pi / 3))
    assert report.similarities == pytest.approx((*cosine, -cosine[0]), abs=1e-3)
    assert report.weights == pytest.approx((cosine[0] / sum(cosine), cosine[1] / sum(cosine), 0), abs=1e-3)
    assert sum(report.weights) == pytest.approx(1)
    assert report.head == ("classifier.bias", "classifier.weight")
    state = decoded(report.path)
    assert all(torch.equal(state[name], tensor) for name, tensor in like.items())
    assert error_to(report.path, weighted(packs, report.weights)) < 2e-3
    plain = fuse(tmp_path, packs, like=HeadSimilarity(like, plain_sum=True), target=AMPLE)
    assert plain.weights == pytest.approx((cosine[0] / cosine[1], 1, -cosine[0] / cosine[1]), abs=1e-2)


def test_heads_of_other_numbers_of_classes_are_compared_by_mean_rows(tmp_path: Path) -> None:
    packs = packs_of(tmp_path, fines_with(rows(0, 0), rows(math.pi / 2, math.pi / 2, math.pi / 2)))
    like = {"classifier.weight": rows(0.1, 0.1, 0.1, 0.1), "classifier.bias": torch.zeros(4)}
    report = fuse(tmp_path, packs, like=like, target=AMPLE)
    assert report.similarities == pytest.approx((math.cos(0.1), math.sin(0.1)), abs=1e-3)
    assert decoded(report.path)["classifier.weight"].shape == (4, 48)


def test_of_a_whole_model_only_the_head_is_taken(tmp_path: Path) -> None:
    packs = packs_of(tmp_path, fines_with(rows(0, 0), rows(1, 1)))
    unseen = fine_state(7) | {"classifier.weight": rows(0.5, 0.5)}
    save_file(unseen, tmp_path / "unseen.safetensors")
    pack = make_pack(base_state(), unseen, tmp_path / "unseen_pack", target=dtscodec.Rank(4)).path
    results = []
    with dtscodec.open(pack) as opened:
        for like in (unseen, str(tmp_path / "unseen.safetensors"), tmp_path / "unseen.safetensors", pack, opened):
            report = fuse(tmp_path, packs, like=like, target=AMPLE)
            assert report.head == ("classifier.bias", "classifier.weight")
            assert error_to(report.path, weighted(packs, report.weights)) < 2e-3
            results.append(report.path.read_bytes())
    assert len(set(results)) == 1


def test_exact_tensors_of_the_base_are_not_taken_for_a_head(tmp_path: Path) -> None:
    packs = packs_of(tmp_path, fines_with(rows(0, 0), rows(1, 1)), target=dtscodec.Rank(4), raw=("layer.norm*",))
    unseen = fine_state(7) | {"classifier.weight": rows(0.5, 0.5)}
    with pytest.raises(BaseMismatchError, match="may be the base's or a head"):
        dtscodec.fuse(packs, tmp_path / "out", like=unseen)
    report = fuse(tmp_path, packs, like=unseen, base=base_state(), target=AMPLE)
    assert report.head == ("classifier.bias", "classifier.weight")
    assert error_to(report.path, weighted(packs, report.weights)) < 2e-3


def test_each_pack_has_its_head_and_none_is_given(tmp_path: Path) -> None:
    packs = packs_of(tmp_path, fines_with(rows(0, 0), rows(1, 1)))
    with pytest.raises(EncodeError, match=r"classifier\.weight: .*`like`"):
        dtscodec.fuse(packs, tmp_path / "out", weights=[0.5, 0.5])
    report = fuse(tmp_path, packs[:1] * 2, weights=[0.5, 0.5])
    assert torch.equal(decoded(report.path)["classifier.weight"], decoded(packs[0])["classifier.weight"])


def test_a_file_without_a_head_is_refused(tmp_path: Path) -> None:
    packs = packs_of(tmp_path, fines_with(rows(0, 0), rows(1, 1)))
    with pytest.raises(ConfigError, match=r"expected a tensor that the packs store without the base .*classifier"):
        dtscodec.fuse(packs, tmp_path / "out", like={"layer.up.weight": torch.zeros(96, 48)})
    with pytest.raises(CheckpointError):
        dtscodec.fuse(packs, tmp_path / "out", like=str(tmp_path / "missing"))
    (tmp_path / "odd").write_bytes(b"text")
    with pytest.raises(CheckpointError):
        dtscodec.fuse(packs, tmp_path / "out", like=tmp_path / "odd")


def test_a_head_that_the_base_has_is_compared_with_it_and_replaced(tmp_path: Path) -> None:
    initial = {"classifier.weight": 10 * rows(0.3, 0.3), "classifier.bias": torch.zeros(2)}
    base = base_state() | initial
    moved = [initial["classifier.weight"] + 0.1 * rows(angle, angle) for angle in (0, math.pi / 2)]
    packs = packs_of(tmp_path, fines_with(*moved), base, target=AMPLE)
    like = {"classifier.weight": initial["classifier.weight"] + 0.1 * rows(0.2, 0.2)}
    coded = make_pack(base, fines_with(moved[0])[0], tmp_path / "coded", target=dtscodec.Rank(4)).path
    with pytest.raises(BaseMismatchError, match="which is compared"):
        dtscodec.fuse([coded, coded], tmp_path / "out", like=like)
    plain = fuse(tmp_path, packs, base, like=like, base=base, target=AMPLE)
    assert plain.similarities is not None
    assert are_indistinct(plain.similarities)
    report = fuse(tmp_path, packs, base, like=HeadSimilarity(like, minus=base), base=base, target=AMPLE)
    assert report.similarities == pytest.approx((math.cos(0.2), math.sin(0.2)), abs=0.01)
    state = decoded(report.path, base)
    assert torch.equal(state["classifier.weight"], like["classifier.weight"])
    with dtscodec.open(report.path) as fused:
        assert "classifier.weight" not in fused.index.base_names()


def test_parts_of_heads_that_not_all_have_are_left_out(tmp_path: Path) -> None:
    fines = fines_with(rows(0, 0), rows(1, 1))
    fines[0]["score.weight"] = torch.randn(3, 48)
    packs = packs_of(tmp_path, fines)
    like = {"classifier.weight": rows(1.0, 0.5), "classifier.bias": torch.ones(2)}
    assert "score.weight" not in decoded(fuse(tmp_path, packs, like=like).path)
    with pytest.raises(EncodeError, match=r"score\.weight: expected packs of one architecture"):
        dtscodec.fuse(packs, tmp_path / "out", weights=[0.5, 0.5])


# Vectors


def test_vectors_are_compared_in_place_of_heads(tmp_path: Path) -> None:
    packs = [
        dtscodec.encode(base_state(), body(fine_state(seed)), tmp_path / f"{name}.dts.safetensors", task=task).path
        for seed, (name, task) in enumerate([("a", "movies"), ("b", None)], 1)
    ]
    vectors = {"movies": unit(1, 0), "b": torch.tensor([[0, 1.0], [0, 3]]), "games": unit(3, 1), "else": unit(1, 1)}
    save_file(vectors, tmp_path / "vectors.safetensors")
    for given in (vectors, tmp_path / "vectors.safetensors"):
        report = fuse(tmp_path, packs, like=VectorSimilarity("games", given), target=AMPLE)
        assert report.weights == pytest.approx((0.75, 0.25))
        assert report.tasks == ("movies", "b")
        assert report.head == ()
    save_file({"text": unit(3, 1)}, tmp_path / "text.safetensors")
    assert (
        fuse(tmp_path, packs, like=VectorSimilarity(tmp_path / "text.safetensors", vectors)).weights == report.weights
    )
    assert fuse(tmp_path, packs, like=VectorSimilarity({"text": unit(3, 1)}, vectors)).weights == report.weights


def test_a_head_may_come_with_vectors(tmp_path: Path) -> None:
    packs = packs_of(tmp_path, fines_with(rows(0, 0), rows(1, 1)))
    head: dict[str, Any] = {"classifier.weight": rows(0.4, 2), "classifier.bias": torch.ones(2)}
    vectors = {"0": unit(1, 0), "1": unit(1, 1), "new": unit(1, 2)}
    report = fuse(tmp_path, packs, like=VectorSimilarity("new", vectors), head=head)
    assert report.head == ("classifier.bias", "classifier.weight")
    assert torch.equal(decoded(report.path)["classifier.weight"], head["classifier.weight"])


@pytest.mark.parametrize(
    ("vectors", "task", "match"),
    [
        ({"0": unit(1, 0), "new": unit(1, 2)}, "new", "a vector for '1'"),
        ({"0": unit(1, 0), "1": unit(1), "new": unit(1, 2)}, "new", "2 elements"),
        ({"0": unit(1, 0), "1": torch.ones(1, 2, 3), "new": unit(1, 2)}, "new", "rows of vectors"),
        ({"0": unit(1, 0), "1": torch.ones(2).long(), "new": unit(1, 2)}, "new", "rows of vectors"),
        ({"0": unit(1, 0), "1": unit(1, 0)}, {"a": unit(1), "b": unit(1)}, "one vector"),
        ({"0": unit(1, 0), "1": unit(1, 0), "new": unit(0, 0)}, "new", "not zero"),
        ({"0": unit(1, 0), "1": unit(1, 0), "new": unit(-1, 0)}, "new", "`weights`"),
    ],
)
def test_vectors_that_give_no_weights_are_refused(vectors: State, task: Any, match: str, tmp_path: Path) -> None:
    packs = packs_of(tmp_path, [body(fine_state(seed)) for seed in (1, 2)])
    with pytest.raises(ConfigError, match=match):
        dtscodec.fuse(packs, tmp_path / "out", like=VectorSimilarity(task, vectors))


@pytest.mark.parametrize(
    "like",
    [VectorSimilarity("new", {"0": unit(1, 0)}), HeadSimilarity({}), HeadSimilarity({}, plain_sum=True)],
    ids=repr,
)
def test_weights_are_given_or_computed_and_never_both(like: Any, tmp_path: Path) -> None:
    packs = packs_of(tmp_path, [body(fine_state(seed)) for seed in (1, 2)])
    with pytest.raises(ConfigError, match="both"):
        dtscodec.fuse(packs, tmp_path / "out", weights=[0.5, 0.5], like=like)


def test_an_initial_head_is_not_for_vectors() -> None:
    with pytest.raises(TypeError, match="minus"):
        VectorSimilarity("new", {"new": unit(1, 0)}, minus={})  # type: ignore[call-arg]
