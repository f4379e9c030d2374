import hashlib
import json
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtscodec.checkpoints.auxiliary_file import Carried, Changed, Named
from dtscodec.checkpoints.auxiliary_files import MIN_SAVING, collect_files, restore_files
from dtscodec.errors import BaseMismatchError, CheckpointError, FormatError
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


@pytest.mark.parametrize(
    "file", [Named("vocab.txt", hashlib.sha256(b"8 bytes.").hexdigest()), Changed.of("vocab.txt", b"x", b"8 bytes.")]
)
def test_file_of_the_base_that_differs_or_is_missing_points_to_no_files(tmp_path: Path, file: Named | Changed) -> None:
    for base_dir, message in ((None, "without a directory"), (tmp_path, r"vocab\.txt.*got none")):
        with pytest.raises(BaseMismatchError, match=rf"{message}.*files=False") as caught:
            restore_files([file], base_dir)
        assert caught.value.reason == "base-file"
    fill(tmp_path, vocab__txt=b"other")
    with pytest.raises(BaseMismatchError, match=r"vocab\.txt.*SHA-256.*files=False") as caught:
        restore_files([file], tmp_path)
    assert caught.value.reason == "base-file"


def test_file_of_the_base_that_cannot_be_read_points_to_no_files(tmp_path: Path) -> None:
    fill(tmp_path, vocab__txt=b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n")
    with pytest.raises(CheckpointError, match=r"vocab\.txt.*Git LFS"):
        restore_files([Named("vocab.txt", "0" * 64)], tmp_path)


# Changes of the base's files


def tokenizer(truncation: object = None, entries: int = 40_000) -> bytes:
    """A tokenizer of some megabytes, as transformers formats it."""
    vocabulary = {hashlib.sha256(b"%d" % i).hexdigest()[:10]: i for i in range(entries)}
    return json.dumps({"truncation": truncation, "model": {"vocab": vocabulary}}, indent=2).encode()


def changed_file(tmp_path: Path, data: bytes, base: bytes) -> Carried | Named | Changed:
    fine, base_dir = fill(tmp_path / "fine", x__json=data), fill(tmp_path / "base", x__json=base)
    found = collect_files(fine, base_dir, frozenset())
    assert restore_files(found, base_dir) == {"x.json": data}
    return found[0]


def test_json_with_one_field_changed_takes_less_than_a_kilobyte(tmp_path: Path) -> None:
    data, base = tokenizer({"max_length": 512, "strategy": "LongestFirst"}), tokenizer()
    assert len(data) > 2**20
    changed = changed_file(tmp_path, data, base)
    assert isinstance(changed, Changed)
    assert len(changed.frame) < 1000 < Carried("x.json", data).entry.stored / 100
    assert (changed.size, changed.digest) == (len(data), hashlib.sha256(base).hexdigest())


def test_small_file_is_carried_since_its_change_saves_little(tmp_path: Path) -> None:
    data, base = (json.dumps({"hidden_size": 64, "id": i, "labels": ["good", "bad"]}).encode() for i in range(2))
    assert changed_file(tmp_path, data, base) == Carried("x.json", data)


def test_change_saves_at_least_the_least_saving(tmp_path: Path) -> None:
    for entries in range(20, 400, 20):
        data, base = tokenizer("x", entries), tokenizer("y", entries)
        plain, frame = Carried("x.json", data).entry.stored, Changed.of("x.json", data, base).frame
        found = changed_file(tmp_path, data, base)
        assert isinstance(found, Changed) == (plain - len(frame) >= MIN_SAVING)


def test_file_that_has_nothing_of_the_bases_is_carried(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(5000)
    assert changed_file(tmp_path, data, random.Random(2).randbytes(5000)) == Carried("x.json", data)


@pytest.mark.parametrize("larger", ["data", "base"])
def test_file_beyond_the_limit_of_changes_is_carried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, larger: str
) -> None:
    monkeypatch.setattr("dtscodec.checkpoints.auxiliary_file.MAX_CHANGED_BYTES", 100_000)
    random_bytes = random.Random(1).randbytes(100_001)
    data, base = random_bytes[: 100_000 + (larger == "data")], random_bytes[: 100_000 + (larger == "base")]
    assert changed_file(tmp_path, data, base) == Carried("x.json", data)


@given(st.integers(0, 2**32), st.integers(8, 5000), st.integers(0, 20))
def test_changes_of_any_edits_are_restored(seed: int, size: int, edits: int) -> None:
    chance = random.Random(seed)
    base = chance.randbytes(size) if seed % 2 else b" ".join(b"%d" % chance.randrange(99) for _ in range(size))
    data = bytearray(base)
    for _ in range(edits):
        # Insert, remove or move a piece.
        begin, length = chance.randrange(len(data) + 1), chance.randrange(100)
        piece = chance.choice([b"", chance.randbytes(length), bytes(data[:length])])
        data[begin : begin + chance.choice([0, length])] = piece
    changed = Changed.of("x.json", bytes(data), base)
    assert changed.content(base) == data
    with tempfile.TemporaryDirectory() as folder:
        changed_file(Path(folder), bytes(data), base)


def test_change_has_a_valid_name_digest_size_and_frame() -> None:
    frame = Changed.of("x.json", b"abcdefgh" * 9, b"abcdefgh").frame
    for name, size, digest in (("run.py", 72, "0" * 64), ("x.json", 72, "0" * 63), ("x.json", 2**26 + 1, "0" * 64)):
        with pytest.raises(ValueError, match="expected"):
            Changed(name, size, frame, digest)
    for size, damaged, reason in (
        (73, frame, "file"),
        (71, frame, "file"),
        (72, frame[:-1], "zstd"),
        (72, b"", "zstd"),
    ):
        with pytest.raises(FormatError) as caught:
            Changed("x.json", size, damaged, "0" * 64)
        assert caught.value.reason == reason


def test_change_that_reaches_beyond_its_prefix_is_noticed_when_it_is_restored() -> None:
    prefix = random.Random(1).randbytes(1000)
    with pytest.raises(FormatError, match="zstd"):
        Changed.of("x.json", prefix + b"x", prefix).content(prefix[500:])


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
