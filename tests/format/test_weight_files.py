"""Names of weight files are those that transformers and diffusers give."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtscodec.format.naming import valid_file_name
from dtscodec.format.weight_files import WeightFiles, is_valid_folder, is_valid_stem, split_folder

STEMS = ("model", "model.fp16", "diffusion_pytorch_model", "diffusion_pytorch_model.non_ema", "consolidated", "v1.5")


def their_names(stem: str) -> tuple[str, str]:
    """The single file and the index of shards, by the function of transformers that names variants."""
    modeling = pytest.importorskip("transformers.modeling_utils")
    name, _, variant = stem.partition(".")
    endings = ("safetensors", "safetensors.index.json")
    single, index = (modeling._add_variant(f"{name}.{ending}", variant or None) for ending in endings)
    return single, index


@pytest.mark.parametrize("stem", STEMS[:4])
def test_names_of_variants_are_those_of_transformers(stem: str) -> None:
    files = WeightFiles(stem)
    assert (files.single, files.index) == their_names(stem)
    assert files.shard(1, 2) == f"{stem}-00001-of-00002.safetensors"


def test_a_dot_in_another_stem_is_no_variant() -> None:
    assert WeightFiles("v1.5").index == "v1.5.safetensors.index.json"


@pytest.mark.parametrize("stem", ["", "..", "a/model", "a\\b", "c:a", "a\nb", ".model"])
def test_a_stem_is_one_component(stem: str) -> None:
    assert not is_valid_stem(stem)
    with pytest.raises(ValueError, match="F3"):
        WeightFiles(stem)


@given(st.text("ab./\\:-_1\n", max_size=12))
def test_no_weight_file_has_the_name_of_a_file_that_is_carried_or_of_a_folder(text: str) -> None:
    if not is_valid_stem(text):
        return
    files = WeightFiles(text)
    for name in (files.single, files.index, files.shard(1, 2)):
        assert not valid_file_name(name)
        assert not is_valid_folder(name)


@given(st.lists(st.text("ab/", max_size=6), max_size=4), st.text("ab/", max_size=9))
def test_a_tensor_belongs_to_the_longest_folder_that_its_name_begins_with(folders: list[str], name: str) -> None:
    folder, rest = split_folder(name, folders)
    fits = [one for one in folders if name.startswith(one + "/")]
    assert (folder is None) == (not fits)
    if folder is not None:
        assert len(folder) == max(map(len, fits))
        assert f"{folder}/{rest}" == name
