"""Index and summary: JSON and values are inverses, and rules that are broken have their reasons."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtscodec.errors import FormatError, UnsupportedError
from dtscodec.format.blocks import BaseRows, Raw, Same, Tie
from dtscodec.format.claim import UNIT, Claim, Measure
from dtscodec.format.dtypes import DType, TensorSpec
from dtscodec.format.index import CarriedFile, ChangedFile, Index, NamedFile, TensorEntry
from dtscodec.format.index_json import index_text, parse_index
from dtscodec.format.primitives import canonical_json as canonical
from dtscodec.format.summary import BaseRef, Summary, parse_summary, summary_text
from tests.format.strategies import names, tensor_lists

prefixes = st.tuples(st.sampled_from(["", "a.", "model."]), st.sampled_from(["", "b."])).filter(lambda p: p[0] != p[1])


@given(
    tensor_lists(), prefixes | st.just(("", "")), st.sets(names, max_size=3), st.dictionaries(names, names, max_size=2)
)
def test_an_index_reads_back_equal(
    tensors: list[TensorEntry], prefix: tuple[str, str], absent: set[str], metadata: dict[str, str]
) -> None:
    changed = ChangedFile("tokenizer.json", 99, 50, "1" * 64)
    files = (CarriedFile("config.json", 9, 5), changed, NamedFile("vocab.txt", "0" * 64))
    index = Index(tuple(tensors), prefix, tuple(sorted(absent)), metadata, files)
    assert parse_index(index_text(index), "here") == index


@given(st.sampled_from(["model.fp16", "diffusion_pytorch_model", "consolidated"]), st.booleans())
def test_the_names_of_weight_files_read_back_equal(stem: str, has_folders: bool) -> None:
    entries = tuple(TensorEntry(name, TensorSpec("F32", (2,)), (Raw(2),)) for name in ("1_Dense/b", "1_Dense/c/d", "w"))
    index = Index(entries, stem=stem, folders=("1_Dense", "1_Dense/c") if has_folders else ())
    assert parse_index(index_text(index), "here") == index
    assert [index.folder_of(entry.name) for entry in entries] == [*(index.folders or (None, None)), None]


@given(st.builds(Summary, st.integers(0, 9), st.sampled_from([2**16, 2**20]), task=st.none() | names))
def test_a_summary_reads_back_equal(summary: Summary) -> None:
    assert parse_summary(summary_text(summary), "here") == summary


def test_a_summary_records_repository_and_commit_of_the_base() -> None:
    summary = Summary(1, base=BaseRef("ab" * 32, "user/repo", "f" * 40), encoder="me", optional=("a", "b"))
    assert parse_summary(summary_text(summary), "here") == summary


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_a_summary_records_that_a_base_is_read_dequantized(dtype: DType) -> None:
    summary = Summary(1, base=BaseRef("ab" * 32, dequantized=dtype))
    assert parse_summary(summary_text(summary), "here") == summary
    with pytest.raises(ValueError, match="expected a base dequantized to"):
        BaseRef("ab" * 32, dequantized="F8_E4M3")


billionths = st.integers(0, UNIT)
claims = st.one_of(
    st.tuples(billionths, billionths, billionths).map(sorted).map(lambda kl: ("kl", kl[2], kl[0], kl[1])),
    st.tuples(billionths, billionths, billionths).map(sorted).map(lambda x: ("agreement", x[0], x[2], x[1])),
)


@given(claims, st.integers(1, UNIT - 1), st.integers(1, 99), st.integers(99, 2**53 - 1))
def test_a_claim_reads_back_equal(
    figures: tuple[Measure, int, int, int], confidence: int, samples: int, predictions: int
) -> None:
    summary = Summary(1, claim=Claim(*figures, confidence, samples, predictions, "ab" * 32))
    assert parse_summary(summary_text(summary), "here") == summary
    assert len(summary_text(summary)) < 400


W = TensorEntry("w", TensorSpec("F32", (4, 2)), (Same(4, BaseRows("w", 0)),))


def edited(**changes: object) -> bytes:
    document = json.loads(index_text(Index((W,))))
    tensor = document["tensors"][0]
    for key, value in changes.items():
        tensor[key] = value
        if value is None:
            del tensor[key]
    return canonical.dumps(document)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dtype": "F33"}, "index"),
        ({"dtype": 1}, "index"),
        ({"shape": [4, -2]}, "index"),
        ({"shape": [4, True]}, "index"),
        ({"shape": None}, "index"),
        ({"shape": [1] * 9}, "index"),
        ({"shape": [2**48, 2]}, "limit"),
        ({"shape": [0, 2**49]}, "limit"),
        ({"split": 1}, "index"),
        ({"split": 3}, "index"),
        ({"split": 0}, "index"),
        ({"name": ""}, "index"),
        ({"name": "__metadata__"}, "index"),
        ({"name": "n" * 1025}, "index"),
        ({"blocks": []}, "index"),
        ({"blocks": [1]}, "index"),
        ({"blocks": [{"kind": "same", "height": 4}]}, "index"),
        ({"blocks": [{"kind": "same", "height": 4}, {"kind": "same", "height": 0}]}, "index"),
        ({"blocks": [{"kind": "same", "height": 5}, {"kind": "same", "height": -1}]}, "index"),
        ({"blocks": [{"kind": "same", "height": 1}, {"kind": "same", "height": 1}]}, "index"),
        ({"blocks": [{"kind": "same", "base": "w"}]}, "index"),
        ({"blocks": [{"kind": "same", "base": ["w", 0]}]}, "index"),
        ({"blocks": [{"kind": "same", "base": ["w", -1]}]}, "index"),
        ({"blocks": [{"kind": "same", "base": ["w", 1, 2]}]}, "index"),
        ({"blocks": [{"kind": "same", "base": 7}]}, "index"),
        ({"blocks": [{"kind": "wavelet"}]}, "unknown"),
        ({"blocks": [{"kind": "same", "more": 1}]}, "unknown"),
        ({"blocks": [{"kind": "tie", "to": "w"}]}, "index"),
        ({"blocks": [{"kind": "tie", "to": "v"}]}, "index"),
        ({"blocks": [{"kind": "raw", "planes": [1, 2, 3]}]}, None),  # found when streams are laid out
        ({"blocks": [{"kind": "values", "bits": 3}]}, "index"),
        ({"blocks": [{"kind": "values", "bits": 2, "per": "row"}]}, "index"),
        ({"blocks": [{"kind": "values", "bits": 8, "per": "column"}]}, "index"),
        ({"blocks": [{"kind": "values", "bits": 8, "rows": 4}]}, "index"),
        ({"blocks": [{"kind": "values", "bits": 8, "rows": 0}]}, "index"),
        ({"blocks": [{"kind": "values", "bits": 8, "cols": 2}]}, "index"),
        ({"blocks": [{"kind": "lowrank", "bands": []}]}, "index"),
        ({"blocks": [{"kind": "lowrank", "bands": [[1, 2]] * 17}]}, "index"),
        ({"blocks": [{"kind": "lowrank", "bands": [[0, 2]]}]}, "index"),
        ({"blocks": [{"kind": "lowrank", "bands": [[1, 2, 3]]}]}, "index"),
        ({"blocks": [{"kind": "lowrank", "bands": [[65_535, 2], [1, 2]]}]}, "limit"),
        ({"dtype": "I32", "blocks": [{"kind": "values", "bits": 2}]}, "index"),
        ({"shape": [0, 2], "blocks": [{"kind": "values", "bits": 2}]}, "index"),
    ],
)
def test_an_index_that_contradicts_the_spec_is_refused_with_its_reason(
    changes: dict[str, object], reason: str | None
) -> None:
    if reason is None:
        parse_index(edited(**changes), "here")
        return
    with pytest.raises(FormatError) as caught:
        parse_index(edited(**changes), "here")
    assert caught.value.reason == reason


def test_unknown_keys_are_unsupported_not_damaged() -> None:
    document = json.loads(index_text(Index((W,))))
    with pytest.raises(UnsupportedError):
        parse_index(canonical.dumps(document | {"zebra": 1}), "here")


def test_a_tie_must_name_another_tensor_of_equal_spec_that_is_no_tie() -> None:
    raw = TensorEntry("a", TensorSpec("U8", (2,)), (Raw(2),))
    good = TensorEntry("b", TensorSpec("U8", (2,)), (Tie(2, "a"),))
    assert parse_index(index_text(Index((raw, good))), "here").tensors[1] == good
    other_shape = TensorEntry("b", TensorSpec("U8", (3,)), (Tie(3, "a"),))
    chain = TensorEntry("c", TensorSpec("U8", (2,)), (Tie(2, "b"),))
    for index in (Index((raw, other_shape)), Index((raw, good, chain))):
        with pytest.raises(FormatError) as caught:
            parse_index(index_text(index), "here")
        assert caught.value.reason == "index"
