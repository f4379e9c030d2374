"""Files of Gram matrices: what is saved comes back, and other files are refused."""

from pathlib import Path

import pytest
import torch

from dtscodec.activations.gram_file import Gram, GramFile, GramSet, save_grams
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.errors import CheckpointError
from dtscodec.format.dtypes import TensorSpec

ROWS, IN = 400, 40


def inputs(seed: int = 0) -> torch.Tensor:
    return torch.randn(ROWS, IN, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gram_of(x: torch.Tensor) -> Gram:
    return Gram(x.T @ x / len(x), x.mean(0), len(x))


def test_gram_matrices_are_read_back_by_every_name(tmp_path: Path) -> None:
    path, gram = tmp_path / "grams.safetensors", gram_of(inputs())
    save_grams(path, GramSet({"a": gram}, {"b": "a"}, frozenset(["b"])))
    with GramFile(path) as grams:
        for name, input_first in (("a", False), ("b", True)):
            found = grams.read(name)
            assert name in grams
            assert found is not None
            assert found.mean is not None
            assert (found.rows, found.input_first) == (ROWS, input_first)
            torch.testing.assert_close(found.moment, gram.moment, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(found.mean, inputs().mean(0), rtol=1e-6, atol=1e-6)
        assert grams.read("c") is None


def test_the_digest_is_of_the_content_wherever_the_file_is(tmp_path: Path) -> None:
    def digest(name: str, grams: GramSet) -> bytes:
        save_grams(tmp_path / name, grams)
        with GramFile(tmp_path / name) as file:
            return file.digest()

    gram = gram_of(inputs())
    first = digest("first.safetensors", GramSet({"a": gram}))
    assert digest("copy.safetensors", GramSet({"a": gram})) == first
    assert digest("texts.safetensors", GramSet({"a": gram_of(inputs(1))})) != first
    assert digest("shared.safetensors", GramSet({"a": gram}, {"b": "a"})) != first


@pytest.mark.parametrize(
    "tensors",
    [
        {"a": torch.zeros(3, 4)},
        {"a": torch.zeros(3, 3, dtype=torch.int32)},
        {"a": torch.zeros(3)},
        {"a#mean": torch.zeros(3, 3)},
    ],
)
def test_a_file_of_other_tensors_is_refused(tensors: dict[str, torch.Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"'a"):
        GramFile(tensors)


def test_gram_matrices_that_are_not_finite_are_refused() -> None:
    with pytest.raises(CheckpointError, match="finite"):
        GramFile({"a": torch.full((3, 3), float("nan"))}).read("a")


def test_renaming_retains_shared_inputs() -> None:
    gram = Gram(torch.eye(2, dtype=torch.float64))
    given = GramSet({"q": gram, "o": gram}, {"k": "q"}, frozenset(["k", "o"]))
    found = given.renamed({"k": "x.k", "o": "x.o", "none": "x.none"})
    assert (set(found.grams), dict(found.same), found.input_first) == ({"x.k", "x.o"}, {}, frozenset(["x.k", "x.o"]))
    assert given.renamed({"q": "q", "k": "k", "o": "o"}) == given


def test_specs_of_the_file_are_float32(tmp_path: Path) -> None:
    save_grams(tmp_path / "g.safetensors", GramSet({"a": gram_of(inputs())}))
    with open_checkpoint(tmp_path / "g.safetensors") as file:
        assert file.specs["a"] == TensorSpec("F32", (IN, IN))
