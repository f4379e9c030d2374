import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtscodec.checkpoints.auxiliary_files import Carried, Named, collect_files, restore_files
from dtscodec.errors import CheckpointError
from dtscodec.format.naming import FILE_SUFFIXES, valid_file_name


def fill(directory: Path, **files: bytes) -> Path:
    """Write files; double underscores in a name stand for a dot, three for a slash."""
    for name, data in files.items():
        path = directory / name.replace("___", "/").replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return directory


@pytest.mark.parametrize(
    "name", ["config.json", "vocab.txt", "a/b/c.model", "é.jinja", "a b.spm", *map("x{}".format, FILE_SUFFIXES)]
)
def test_f1_allows(name: str) -> None:
    assert valid_file_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "json", ".json", "/a.json", "a//b.json", "../a.json", "a/../b.json", "./a.json", "a/.b.json", "a/"),
        *("a\\b.json", "C:a.json", "a\nb.json", "a\0.json", "a.py", "a.json.py", "model.index.json", "a.JSON"),
        *("a.safetensors", "a.bin", "a/.json", "\ud800.json"),
    ],
)
def test_f1_refuses(name: str) -> None:
    assert not valid_file_name(name)


@given(st.text("ab./\\:\n", max_size=10), st.sampled_from([*FILE_SUFFIXES, ".index.json", ".py"]))
def test_allowed_names_stay_inside_a_directory(stem: str, ending: str) -> None:
    name = stem + ending
    if valid_file_name(name):
        assert (Path("/x") / name).resolve().is_relative_to("/x")
        assert (Path("/x") / name).as_posix() == "/x/" + name


def test_without_a_directory_nothing_travels(tmp_path: Path) -> None:
    assert collect_files(None, tmp_path, frozenset()) == []


def test_different_files_are_carried_and_equal_ones_named(tmp_path: Path) -> None:
    fine = fill(tmp_path / "fine", config__json=b'{"a": 1}', vocab__txt=b"x", merges__txt=b"m", new__model=b"n")
    base = fill(tmp_path / "base", config__json=b'{"a": 2}', vocab__txt=b"x", merges__txt=b"M", old__json=b"{}")
    assert collect_files(fine, base, frozenset()) == [
        Carried("config.json", b'{"a": 1}'),
        Carried("merges.txt", b"m"),
        Carried("new.model", b"n"),
        Named("vocab.txt", hashlib.sha256(b"x").hexdigest()),
    ]


def test_without_a_base_directory_all_are_carried(tmp_path: Path) -> None:
    fill(tmp_path, vocab__txt=b"x")
    assert collect_files(tmp_path, None, frozenset()) == [Carried("vocab.txt", b"x")]


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (b'{"a": 1, "b": [1]}', b'{\n "b": [ 1 ],\n "a": 1 }', True),
        (b'{"a": [1, 2]}', b'{"a": [2, 1]}', False),
        (b'{"a": 1}', b'{"a": 1.0}', False),
        (b'{"a": 1}', b'{"a": true}', False),
        (b'{"a": "\\u00e9"}', '{"a": "é"}'.encode(), True),
        (b"{no json", b"{no json", True),
        (b"{no json", b"{no  json", False),
        (b"{}", b"\xff\xfe", False),
        (b"[" * 100_000, b"{}", False),
    ],
)
def test_json_is_compared_by_content(tmp_path: Path, a: bytes, b: bytes, same: bool) -> None:
    fine, base = fill(tmp_path / "fine", x__json=a), fill(tmp_path / "base", x__json=b)
    found = collect_files(fine, base, frozenset())
    assert found == [Named("x.json", hashlib.sha256(b).hexdigest()) if same else Carried("x.json", a)]


def test_code_weights_and_leftovers_of_training_stay(tmp_path: Path) -> None:
    names = "modeling.py run.sh model.safetensors pytorch_model.bin training_args.bin training_args.json README.md"
    names += " model.safetensors.index.json optimizer.json optimizer.pt trainer_state.json all_results.json"
    names += " eval_results.json .hidden.json sub/config.json 1_Pooling/run.py 1_Pooling/sub/config.json"
    for name in names.split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"{}")
    assert collect_files(tmp_path, None, frozenset()) == []


def test_names_to_skip_stay(tmp_path: Path) -> None:
    fill(tmp_path, a__json=b"{}", b__json=b"{}")
    assert [file.name for file in collect_files(tmp_path, None, frozenset({"a.json"}))] == ["b.json"]


def test_modules_of_sentence_transformers_travel(tmp_path: Path) -> None:
    fill(tmp_path, modules__json=b"[]", **{"1_Pooling___config__json": b"{}", "12_Dense___config__json": b"{}"})
    found = [file.name for file in collect_files(tmp_path, None, frozenset())]
    assert found == ["12_Dense/config.json", "1_Pooling/config.json", "modules.json"]


def test_linked_files_travel_as_in_the_cache_of_the_hub(tmp_path: Path) -> None:
    fill(tmp_path / "blobs", abc=b"{}")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot/config.json").symlink_to("../blobs/abc")
    (tmp_path / "snapshot/gone.json").symlink_to("../blobs/gone")
    assert collect_files(tmp_path / "snapshot", None, frozenset()) == [Carried("config.json", b"{}")]


def test_collected_files_are_restored(tmp_path: Path) -> None:
    fine = fill(tmp_path / "fine", config__json=b'{"a": 1}', vocab__txt=b"x", **{"1_P___config__json": b"[]"})
    base = fill(tmp_path / "base", vocab__txt=b"x", **{"1_P___config__json": b"[ ]"})
    restored = restore_files(collect_files(fine, base, frozenset()), base)
    assert restored == {"1_P/config.json": b"[ ]", "config.json": b'{"a": 1}', "vocab.txt": b"x"}


def test_named_file_that_differs_or_is_missing_points_to_no_files(tmp_path: Path) -> None:
    named = [Named("vocab.txt", hashlib.sha256(b"x").hexdigest())]
    with pytest.raises(CheckpointError, match=r"without a directory.*files=False"):
        restore_files(named, None)
    with pytest.raises(CheckpointError, match=r"vocab\.txt.*No such file.*files=False"):
        restore_files(named, tmp_path)
    fill(tmp_path, vocab__txt=b"y")
    with pytest.raises(CheckpointError, match=r"vocab\.txt.*SHA-256.*files=False"):
        restore_files(named, tmp_path)


def test_directory_that_is_missing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        collect_files(tmp_path / "no", None, frozenset())


@pytest.mark.parametrize("name", ["../x.json", "run.py"])
def test_auxiliary_files_have_allowed_names(name: str) -> None:
    with pytest.raises(ValueError, match="F1"):
        Carried(name, b"")
    with pytest.raises(ValueError, match="F1"):
        Named(name, "0" * 64)
    with pytest.raises(ValueError, match="64 hex digits"):
        Named("x.json", "0" * 63)
