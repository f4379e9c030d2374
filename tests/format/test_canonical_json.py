"""Canonical JSON: writing and reading are inverses, and each document has one text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtscodec.format.primitives import canonical_json as canonical
from dtscodec.format.primitives.canonical_json import Json

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = st.none() | st.just(True) | text | st.integers(-(2**53) + 1, 2**53 - 1)
documents: st.SearchStrategy[Json] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=8
)


@given(documents)
def test_what_is_written_reads_back_equal(document: Json) -> None:
    try:
        written = canonical.dumps(document)
    except ValueError:
        return  # nested too deeply
    assert canonical.loads(written) == document


@given(documents)
def test_reading_accepts_one_text_only_for_a_document(document: Json) -> None:
    try:
        written = canonical.dumps(document)
    except ValueError:
        return
    for other in (written + b" ", b" " + written, written.replace(b",", b", ", 1), written.replace(b":", b" :", 1)):
        if other != written:
            try:
                again = canonical.loads(other)
            except ValueError:
                continue
            assert canonical.dumps(again) == other


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[1.0]",
        b"[1e3]",
        b"[false]",
        b"[NaN]",
        b"[Infinity]",
        b'{"a":1,"a":2}',
        b'{"b":1,"a":2}',
        b'["\\u0061"]',
        b'["\\/"]',
        b'["\xff"]',
        b'["\\ud800"]',
        b"[9007199254740992]",
        b"[-0]",
        b"[01]",
        b"[" * 100_000,
        b"[[[[[[[[[1]]]]]]]]]",
        b"1" * 10_000,
    ],
)
def test_what_is_not_canonical_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="canonical"):
        canonical.loads(text)


def test_keys_are_ordered_by_utf16_units_as_rfc_8785_says() -> None:
    # U+1F600 is a surrogate pair beginning with D83D in UTF-16, so it comes before U+FB33, not after.
    assert canonical.dumps({"\ufb33": 1, "\U0001f600": 2}) == '{"\U0001f600":2,"\ufb33":1}'.encode()


@pytest.mark.parametrize("value", [False, 1.5, 2**53, -(2**53), float("nan"), {"a": False}, [0.5], b"x"])
def test_values_that_canonical_json_lacks_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        canonical.dumps(value)  # type: ignore[arg-type]
