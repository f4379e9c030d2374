"""The index of a directory of packs: text and value are inverses, and no path leads out of the directory."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtscodec.errors import CheckpointError
from dtscodec.packs.directory_index import (
    DirectoryIndex,
    ListedPack,
    directory_index_text,
    parse_directory_index,
    read_directory_index,
    write_directory_index,
)

names = st.text("abé-_ ", min_size=1, max_size=8)
packs = st.builds(
    ListedPack,
    names.map("packs/{}.safetensors".format),
    st.integers(0, 2**40),
    st.text("0123456789abcdef", min_size=64, max_size=64),
    st.dictionaries(names, st.floats(allow_nan=False, allow_infinity=False), max_size=2),
)
bases = st.none() | names | names.map("hf://user/{}@0123".format)


@given(st.dictionaries(names, packs, max_size=3), bases)
def test_an_index_reads_back_equal(listed: dict[str, ListedPack], base: str | None) -> None:
    index = DirectoryIndex(listed, base)
    assert parse_directory_index(directory_index_text(index).encode(), "index") == index


def test_a_written_index_is_read_and_a_directory_without_one_has_none(tmp_path: Path) -> None:
    assert read_directory_index(tmp_path) is None
    index = DirectoryIndex({"task": ListedPack("packs/task.safetensors", 7, "0" * 64)}, "base")
    write_directory_index(tmp_path, index)
    assert read_directory_index(tmp_path) == index


@pytest.mark.parametrize("path", ["/etc/passwd", "../base", "packs/../../base"])
def test_a_path_out_of_the_directory_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="within the directory"):
        DirectoryIndex({}, path)
    with pytest.raises(ValueError, match="within the directory"):
        DirectoryIndex({"task": ListedPack(path, 7, "0" * 64)})


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"packs": {}}',
        b'{"version": 2, "packs": {}}',
        b'{"version": 1, "packs": {"task": {}}}',
        b'{"version": 1, "packs": {}, "base": "../base"}',
        b'{"version": 1, "packs": {"task": {"file": "a", "size": 1, "id": "b", "figures": {"x": true}}}}',
        b'{"version": 1, "packs": {"task": {"file": "a", "size": 1, "id": "b", "figures": {"x": NaN}}}}',
        b'{"version": 1, "packs": {"task": {"file": "a", "size": 1, "id": "b", "figures": {"x": 1'
        + 400 * b"0"
        + b"}}}}",
    ],
)
def test_what_is_not_an_index_is_refused(text: bytes) -> None:
    with pytest.raises(CheckpointError, match="expected an index of packs"):
        parse_directory_index(text, "index")
