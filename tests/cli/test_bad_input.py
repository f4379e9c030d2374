"""Whatever is wrong: one line that tells where, what was expected and what was found, and nothing changed."""

import os
import pickle
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import dtscodec
from dtscodec.errors import DtsError, FormatError
from tests.cli.helpers import PACK, Cli, Document, base_tensors, fine_tensors, flipped, load, write_changed

READING = [
    ["info", PACK],
    ["info", PACK, "--json"],
    ["verify", PACK],
    ["verify", PACK, "--base", "base"],
    ["compare", PACK, "movie", "--base", "base"],
    ["decode", PACK, "--base", "base", "-o", "out.safetensors"],
    ["decode", PACK, "--base", "base", "-o", "out.bin"],
    ["decode", PACK, "--base", "base", "-o", "out"],
]
OUTPUTS = ["out", "out.safetensors", "out.bin"]


# Packs


@pytest.mark.parametrize("command", READING, ids=" ".join)
@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.3, 0.5, 0.9, 0.999])
def test_a_pack_that_is_cut_off(cli: Cli, command: list[str], share: float) -> None:
    data = Path(PACK).read_bytes()
    Path(PACK).write_bytes(data[: int(share * len(data))])
    assert cli.fails(*command).startswith(f"truncated: {PACK}: expected")


def test_a_pack_that_is_cut_off_anywhere(made: Path) -> None:
    data = (made / PACK).read_bytes()
    for length in range(len(data)):
        with pytest.raises(EOFError):
            dtscodec.open(data[:length])


@pytest.mark.parametrize("command", READING, ids=" ".join)
@pytest.mark.parametrize("share", [0.0, 0.002, 0.05, 0.35, 0.6, 0.8, 1.0])
def test_one_flipped_byte(cli: Cli, command: list[str], share: float) -> None:
    with flipped(Path(PACK), int(share * (Path(PACK).stat().st_size - 1))):
        line = cli.fails(*command)
        assert PACK in line


@pytest.mark.parametrize("bit", [0x01, 0x80, 0xFF])
def test_one_flipped_byte_anywhere(made: Path, bit: int) -> None:
    data = (made / PACK).read_bytes()
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= bit
        with pytest.raises(FormatError):
            for _ in dtscodec.open(bytes(changed)).reader.check_all():
                pass


@pytest.mark.parametrize("out", OUTPUTS)
def test_damage_in_the_last_tensor_leaves_no_output(cli: Cli, large: Path, out: str) -> None:
    cli("encode", "large-base.safetensors", "large.safetensors", "-o", "a", "--raw", "*")
    size = Path("a").stat().st_size
    assert size > 2 * 2**16  # so that the first tensors are sound
    with flipped(Path("a"), size - 1):
        line = cli.fails("decode", "a", "--base", "large-base.safetensors", "-o", out)
        assert line.startswith("checksum: a: bytes ")


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        (lambda d: d.update(version=2), "version", ["expected version 1", "got 2"]),
        (lambda d: d.update(requires=["chain"]), "feature", ["chain"]),
        (lambda d: d.update(colour="blue"), "unknown", ["colour"]),
        (lambda d: d.update(tensors=7), "summary", ["expected 7", "got 8"]),
        (lambda d: d.update(tensors=-1), "summary", ["-1"]),
    ],
)
def test_a_summary_of_another_kind(
    cli: Cli, change: Callable[[Document], object], reason: str, words: list[str]
) -> None:
    write_changed("a", Path(PACK).read_bytes(), summary=change)
    line = cli.fails("info", "a")
    assert line.startswith(f"{reason}: a")
    assert all(word in line for word in words)
    assert cli.fails("decode", "a", "--base", "base", "-o", "out") == line


def tensor(**fields: object) -> Callable[[Document], object]:
    return lambda document: document["tensors"][0].update(fields)


def block(**fields: object) -> Callable[[Document], object]:
    return lambda document: document["tensors"][0]["blocks"][0].update(fields)


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        (block(kind="sparse"), "unknown", ["sparse"]),
        (block(colour="blue"), "unknown", ["colour"]),
        (tensor(colour="blue"), "unknown", ["colour"]),
        (lambda d: d.update(colour="blue"), "unknown", ["colour"]),
        (tensor(dtype="F7"), "index", ["F7"]),
        (tensor(shape=[2**47, 32]), "limit", ["2"]),
        (tensor(shape=[2**20, 32]), "totals", ["raw: expected 1342"]),
        (lambda d: d["files"][0].update(name="../config.json"), "file", ["../config.json"]),
        (lambda d: d["files"][0].update(name="modeling.py"), "file", ["modeling.py"]),
        (lambda d: d["files"][0].update(size=2**40), "file", ["config.json"]),
    ],
)
def test_an_index_of_another_kind(
    cli: Cli, change: Callable[[Document], object], reason: str, words: list[str]
) -> None:
    write_changed("a", Path(PACK).read_bytes(), index=change)
    line = cli.fails("info", "a")
    assert line.startswith(f"{reason}: a: ")
    assert all(word in line for word in words), line
    assert cli.fails("decode", "a", "--base", "base", "-o", "out") == line


def test_changing_nothing_keeps_a_pack_sound(cli: Cli) -> None:
    write_changed("a", Path(PACK).read_bytes())
    cli("verify", "a", "--base", "base")


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Four GiB of address space more than there are, so that claims of terabytes cannot be met."""
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("needs Linux's way to tell how much memory is in use")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**32, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("claim", [2**16, 2**31, 2**42, 2**63, 2**64 - 1])
def test_a_file_whose_header_claims_terabytes(cli: Cli, claim: int) -> None:
    Path("a.safetensors").write_bytes(claim.to_bytes(8, "little") + Path(PACK).read_bytes()[8:])
    assert cli.fails("info", "a.safetensors").startswith("header: a.safetensors: expected ")
    assert cli.fails("encode", "base", "a.safetensors").startswith("a.safetensors: expected a")
    assert cli.fails("encode", "a.safetensors", "movie", "-o", "out").startswith("a.safetensors: expected a")


@pytest.mark.usefixtures("little_memory")
def test_a_pack_whose_arena_claims_terabytes(cli: Cli) -> None:
    data = Path(PACK).read_bytes()
    length = 8 + int.from_bytes(data[:8], "little")
    at = data.index(b'"raw":{"data_offsets":[') + 23
    end = data.index(b"]", at)
    offset = int(data[at:end].split(b",")[0])
    old = data[at - 23 : data.index(b"}", at)]
    new = old[:23] + f'{offset},{offset + 2**42}],"dtype":"U8","shape":[{2**42}]'.encode()
    header = data[:length].replace(old, new).rstrip(b" ")
    header += b" " * (-len(header) % 32)
    Path("a").write_bytes((len(header) - 8).to_bytes(8, "little") + header[8:] + data[length:])
    assert cli.fails("info", "a").startswith("truncated: a: expected 4398")


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("out", OUTPUTS)
def test_a_pack_whose_tensor_would_take_terabytes(cli: Cli, out: str) -> None:
    big = {"name": "a", "dtype": "F32", "shape": [2**40], "blocks": [{"kind": "same", "base": None}]}
    write_changed(
        "a",
        Path(PACK).read_bytes(),
        summary=lambda d: d.update(tensors=9),
        index=lambda d: d["tensors"].insert(0, big),
    )
    assert cli.fails("decode", "a", "--base", "base", "-o", out).startswith("limit: a: expected at most 68719476736")


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("shape", [[2**40], [2**31, 2**31], [0, 2**62]])
def test_a_checkpoint_whose_tensor_claims_terabytes(cli: Cli, shape: list[int]) -> None:
    size = 1
    for extent in shape:
        size *= extent
    header = f'{{"w":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{4 * size}]}}}}'.encode()
    Path("a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
    assert cli.fails("encode", "base", "a.safetensors").startswith("a.safetensors: ")
    assert cli.fails("decode", PACK, "--base", "a.safetensors", "-o", "out").startswith("a.safetensors: ")


@pytest.mark.parametrize("content", [b"", b"x", b"not a pack, and longer than eight bytes", bytes(1000)])
def test_a_file_that_is_no_pack(cli: Cli, content: bytes) -> None:
    Path(PACK).write_bytes(content)
    for command in READING:
        assert f"{PACK}: expected" in cli.fails(*command)


def test_a_checkpoint_is_no_pack(cli: Cli) -> None:
    line = cli.fails("info", "movie/model.safetensors")
    assert line.startswith("header: movie/model.safetensors: expected")
    assert line.endswith(": no pack")


def test_a_pack_is_no_checkpoint_of_the_bases_kind(cli: Cli) -> None:
    line = f"{PACK}: expected a checkpoint, got a pack whose 'decoder.weight' is not whole; decode it first"
    assert cli.fails("encode", "base", PACK, "-o", "out") == line


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_a_pack_that_is_missing(cli: Cli, command: list[str]) -> None:
    Path(PACK).unlink()
    assert cli.fails(*command) == f"{PACK}: expected a pack, got 'No such file or directory'"
    Path(PACK).mkdir()
    assert cli.fails(*command) == f"{PACK}: expected a pack, got 'Is a directory'"


def test_only_encode_writes_to_remote_storage(cli: Cli) -> None:
    line = cli.fails("decode", PACK, "--base", "base", "-o", "s3://bucket/out")
    assert line == "s3://bucket/out: expected a local path, since only encode writes to remote storage"


def test_a_local_pack_and_output_may_be_named_as_urls(cli: Cli) -> None:
    here = Path.cwd().as_uri()
    cli("decode", f"{here}/{PACK}", "--base", "base", "-o", f"{here}/out.safetensors")
    assert Path("out.safetensors").exists()


# Bases


def replaced(change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    base = load("base/model.safetensors")
    change(base)
    save_file(base, "base/model.safetensors")


NEEDS_BASE = [command for command in READING if "--base" in command]


@pytest.mark.parametrize("command", NEEDS_BASE, ids=" ".join)
def test_a_wrong_base(cli: Cli, command: list[str]) -> None:
    replaced(lambda base: [tensor.mul_(2) for tensor in base.values()])
    line = cli.fails(*command)
    assert line.startswith("base-leaf: base/model.safetensors: '")
    assert ": expected a leaf of " in line
    assert ", got " in line


@pytest.mark.parametrize("command", NEEDS_BASE, ids=" ".join)
@pytest.mark.parametrize("name", ["decoder.weight", "frozen.weight", "half.weight"])
def test_a_base_with_one_changed_tensor(cli: Cli, command: list[str], name: str) -> None:
    replaced(lambda base: base[name][-1, -1:].add_(1))
    assert cli.fails(*command).startswith(f"base-leaf: base/model.safetensors: '{name}'")


@pytest.mark.parametrize("command", NEEDS_BASE, ids=" ".join)
def test_a_base_that_lacks_a_tensor(cli: Cli, command: list[str]) -> None:
    replaced(lambda base: base.pop("half.weight"))
    line = cli.fails(*command)
    assert line == "base-tensor: base/model.safetensors: 'half.weight': expected a tensor of this name, got none"


@pytest.mark.parametrize("command", NEEDS_BASE, ids=" ".join)
def test_a_base_whose_tensor_has_another_shape_or_dtype(cli: Cli, command: list[str]) -> None:
    for change in (lambda t: t[:20].clone(), lambda t: t.float(), lambda t: t.int()):
        shutil.copytree("base", "kept")
        replaced(lambda base, change=change: base.update({"half.weight": change(base["half.weight"])}))  # type: ignore[misc]
        assert "base/model.safetensors: 'half.weight'" in cli.fails(*command)
        shutil.rmtree("base")
        Path("kept").rename("base")


def test_fine_tune_and_base_swapped(cli: Cli) -> None:
    assert cli.fails("decode", PACK, "--base", "movie", "-o", "out").startswith("base-leaf: movie/")
    assert cli.fails("verify", PACK, "--base", "movie").startswith("base-leaf: movie/")
    line = cli.fails("compare", PACK, "base", "--base", "movie")
    assert line.startswith("base/model.safetensors: ")
    assert ", got no such tensor" in line


def test_a_base_of_another_architecture(cli: Cli) -> None:
    save_file({"trunk.weight": torch.ones(100, 100)}, "other.safetensors")
    line = cli.fails("encode", "other.safetensors", "movie", "-o", "out")
    assert line.startswith("base-tensor: ")
    assert "expected the fine-tune's architecture" in line
    # No rename would help.
    assert line.rstrip().endswith("the base has none of that name); name the right base")
    wider = {name: torch.ones([2 * n for n in tensor.shape]) for name, tensor in base_tensors().items()}
    save_file(wider, "wider.safetensors")
    assert "expected the fine-tune's architecture" in cli.fails("encode", "wider.safetensors", "movie", "-o", "out")


def test_a_bases_prefix_that_is_ambiguous(cli: Cli) -> None:
    twice = {f"{side}.{name}": tensor + 1 for side in ("left", "right") for name, tensor in base_tensors().items()}
    save_file(twice, "twice.safetensors")
    line = cli.fails("encode", "twice.safetensors", "movie", "-o", "out")
    assert "'left.'" in line
    assert "'right.'" in line
    assert "--map =left." in line
    cli("encode", "twice.safetensors", "movie", "-o", "out", "--map", "=left.")


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ("nothing.=encoder.", "a tensor of the fine-tune that starts so, got none"),
        ("encoder.=nothing.", "tensors of the base such as 'nothing.bias', got none"),
    ],
)
def test_a_map_that_matches_nothing(cli: Cli, mapping: str, words: str) -> None:
    old, new = mapping.split("=")
    line = f"renaming {old} to {new}: expected {words}"
    assert cli.fails("encode", "base", "movie", "-o", "out", "--map", mapping) == line


# Checkpoints


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["encoder.weight", "encoder.bias", "half.weight", "embeddings.weight"])
def test_a_fine_tune_that_is_not_finite(cli: Cli, name: str, value: float) -> None:
    fine = fine_tensors(11)
    fine[name].view(-1)[5] = value
    save_file(fine, "bad.safetensors")
    line = cli.fails("encode", "base", "bad.safetensors")
    assert line.startswith(f"{name}: expected finite elements, got {value} at [")
    assert line.endswith(f"--raw {name}")
    cli("encode", "base", "bad.safetensors", "--raw", name)
    cli("decode", "bad.dts.safetensors", "--base", "base", "-o", "out.safetensors")
    assert load("out.safetensors")[name].numpy().tobytes() == fine[name].numpy().tobytes()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_base_that_is_not_finite(cli: Cli, value: float, prefix: str) -> None:
    replaced(lambda base: base["encoder.weight"].view(-1)[5:6].fill_(value))
    save_file({prefix + name: tensor for name, tensor in fine_tensors(11).items()}, "fine.safetensors")
    line = cli.fails("encode", "base", "fine.safetensors")
    assert line.startswith(f"{prefix}encoder.weight: expected finite elements, got {value} at [0, 5] in the base's")
    raw = line[line.index("--raw ") :].split()[1].strip("'")
    cli("encode", "base", "fine.safetensors", "--raw", raw)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_but_unchanged_or_exact_is_fine(cli: Cli, value: float) -> None:
    fine = fine_tensors(11)
    for tensors in (fine, base := base_tensors()):
        tensors["frozen.weight"][3, 3] = value
    fine["classifier.weight"][0, 0] = value
    save_file(base, "b.safetensors")
    save_file(fine, "f.safetensors")
    cli("encode", "b.safetensors", "f.safetensors", "-o", "a")
    cli("decode", "a", "--base", "b.safetensors", "-o", "out.safetensors")
    for name in ("frozen.weight", "classifier.weight"):
        assert load("out.safetensors")[name].numpy().tobytes() == fine[name].numpy().tobytes()


def test_a_delta_that_overflows(cli: Cli) -> None:
    base, fine = base_tensors(), fine_tensors(11)
    base["encoder.bias"][4], fine["encoder.bias"][4] = -3e38, 3e38
    save_file(base, "b.safetensors")
    save_file(fine, "f.safetensors")
    line = cli.fails("encode", "b.safetensors", "f.safetensors", "-o", "a")
    assert line.startswith("encoder.bias: expected finite elements, got inf at [4] in its difference from the base")


class Code:
    """What runs a command when it is unpickled carelessly."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch ran",)


@pytest.mark.parametrize("form", ["zip", "old", "pickle", "wrapped"])
def test_a_checkpoint_that_holds_code_is_not_run(cli: Cli, form: str) -> None:
    content: dict[str, Any] = {"w": torch.ones(3), "x": Code()}
    Path("bad").mkdir()
    if form == "pickle":
        Path("bad/pytorch_model.bin").write_bytes(pickle.dumps({"x": Code()}, protocol=2))
    else:
        content = {"state_dict": content} if form == "wrapped" else content
        torch.save(content, "bad/pytorch_model.bin", _use_new_zipfile_serialization=form != "old")
    for command in (
        ["encode", "base", "bad"],
        ["encode", "bad", "movie", "-o", "out"],
        ["encode", "base", "bad/pytorch_model.bin", "-o", "out"],
        ["decode", PACK, "--base", "bad", "-o", "out"],
        ["compare", PACK, "bad", "--base", "base"],
    ):
        line = cli.fails(*command)  # which would find the file `ran`
        assert line.startswith("bad/pytorch_model.bin: expected tensors only, got")
        assert "system" in line


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("missing", "missing: expected a checkpoint, got nothing of that name"),
        ("missing/deep.safetensors", "missing/deep.safetensors: expected a checkpoint, got nothing of that name"),
        ("empty", "empty: expected model.safetensors, "),
        ("empty.safetensors", "empty.safetensors: expected at least 8 bytes, got 0"),
        ("empty.bin", "empty.bin: expected"),
        ("text.safetensors", "text.safetensors: expected"),
        ("text.bin", "text.bin: expected"),
        ("text.index.json", "text.index.json: expected a JSON object"),
        ("lost.index.json", "gone.safetensors: expected"),
        ("/dev/null", "/dev/null: expected a file or a directory, got something else"),
    ],
)
def test_what_is_no_checkpoint(cli: Cli, place: str, words: str) -> None:
    Path("empty").mkdir()
    for name in ("empty.safetensors", "empty.bin"):
        Path(name).touch()
    for name in ("text.safetensors", "text.bin", "text.index.json"):
        Path(name).write_text("some text that is no checkpoint at all")
    Path("lost.index.json").write_text('{"weight_map": {"w": "gone.safetensors"}}')
    for command in (
        ["encode", place, "movie", "-o", "out"],
        ["encode", "base", place, "-o", "out"],
        ["encode", "base", place, "-o", "out/"],
        ["encode", "base", f"a={place}", "movie", "-o", "out"],
        ["decode", PACK, "--base", place, "-o", "out"],
        ["verify", PACK, "--base", place],
        ["compare", PACK, place, "--base", "base"],
    ):
        assert words in cli.fails(*command)


def test_odd_metadata(cli: Cli) -> None:
    header = rb'{"__metadata__":{"a":"\ud800"},"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    Path("a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"x")
    save_file({"w": torch.ones(1, dtype=torch.uint8)}, "b.safetensors")
    assert cli.fails("encode", "b.safetensors", "a.safetensors", "-o", "out").startswith("a.safetensors: ")


# Outputs


def writing(out: str) -> list[list[str]]:
    return [
        ["encode", "base", "movie", "-o", out],
        ["encode", "base", "movie", "-o", out + "/"],
        ["encode", "base", "movie", "tweets", "-o", out],
        *(["decode", PACK, "--base", "base", "-o", out + ending] for ending in ("", ".safetensors", ".bin")),
    ]


@pytest.mark.parametrize("place", ["missing/out", "base/config.json/out", "/proc/out", "/sys/out", "/dev/null/out"])
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_place_that_cannot_be_written_even_by_root(cli: Cli, place: str, force: list[str]) -> None:
    for command in writing(place):
        line = cli.fails(*command, *force)
        assert f"{place}" in line.split(": ")[0]
        assert ": expected " in line
    assert not os.path.lexists(place)


def test_a_file_system_that_is_read_only(cli: Cli, read_only: Path) -> None:
    for command in writing(str(read_only / "out")):
        assert "expected to write it, got 'Read-only file system'; choose another output (-o)" in cli.fails(*command)
    assert list(read_only.iterdir()) == []


def test_a_file_where_a_directory_should_be(cli: Cli) -> None:
    Path("file").touch()
    assert cli.fails("encode", "base", "movie", "-o", "file/", "--force").startswith("file: expected a directory")
    assert "/file: expected a directory" in cli.fails("decode", PACK, "--base", "base", "-o", "file", "--force")


def test_a_name_that_is_too_long(cli: Cli) -> None:
    for command in writing("x" * 300):
        assert "File name too long" in cli.fails(*command)


@pytest.mark.parametrize("out", ["movie/model.safetensors", "base/model.safetensors", "link", "hard-link"])
def test_encode_never_replaces_an_input(cli: Cli, out: str) -> None:
    Path("link").symlink_to("movie/model.safetensors")
    Path("hard-link").hardlink_to("movie/model.safetensors")
    line = cli.fails("encode", "base", "movie", "-o", out, "--force")
    assert line.startswith(f"{out}: expected an output apart from the input")


def test_encode_never_replaces_a_part_of_an_input(cli: Cli) -> None:
    cli("decode", PACK, "--base", "base", "-o", "sharded", "--shard-size", "7kB")
    for part in sorted(Path("sharded").glob("model*")):
        line = cli.fails("encode", "base", "sharded", "-o", str(part), "--force")
        assert line.startswith(f"{part}: expected an output apart from the input")


def test_encode_never_replaces_an_input_that_lies_among_the_packs(cli: Cli) -> None:
    cli("encode", "base", "movie", "-o", "made/")
    shutil.copy("movie/model.safetensors", "made/packs/copy.safetensors")
    line = cli.fails("encode", "base", "made/packs/copy.safetensors", "-o", "made", "--force")
    assert line.startswith("made/packs/copy.safetensors: expected an output apart from the input")


@pytest.mark.parametrize("out", ["movie.safetensors", "base/model.safetensors", "base", "."])
def test_decode_never_replaces_an_input(cli: Cli, out: str) -> None:
    Path(PACK).rename("movie.safetensors")
    line = cli.fails("decode", "movie.safetensors", "--base", "base", "-o", out, "--force")
    assert "expected an output apart from the input, got the input" in line


def test_decode_deletes_no_directory_that_holds_other_things(cli: Cli) -> None:
    line = cli.fails("decode", PACK, "--base", "base", "-o", "movie", "--force")
    detail = "expected only files that may be deleted to replace the directory, got 'modeling.py'"
    assert line.startswith(f"{Path('movie').resolve()}: {detail}")


# Full disks


@pytest.mark.parametrize("out", ["out", "out/"])
def test_encode_on_a_full_disk(cli: Cli, large: Path, small_disk: Path, out: str) -> None:
    place = f"{small_disk}/{out}"
    part = f"{place}dtscodec.part" if out.endswith("/") else f"{place}.part"
    line = cli.is_cut_off("encode", "large-base.safetensors", "large.safetensors", "-o", place, "--raw", "*", part=part)
    assert line.startswith(part)
    assert "expected to write it, got '" in line
    assert line.endswith("choose another output (-o)")
    assert not [path for path in small_disk.rglob("*") if path.is_file()]


def test_encode_whose_streams_wait_on_a_full_disk(
    cli: Cli, large: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dtscodec.files.spool.MEMORY_BYTES", 1000)
    out = str(small_disk / "out")
    command = ["encode", "large-base.safetensors", "large.safetensors", "-o", out, "--raw", "*"]
    line = cli.is_cut_off(*command, part=f"{out}.part")
    assert line.startswith(str(small_disk))
    assert "expected to write it, got '" in line
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("out", OUTPUTS)
@pytest.mark.parametrize("shards", [[], ["--shard-size", "30kB"]])
def test_decode_on_a_full_disk(cli: Cli, large: Path, small_disk: Path, out: str, shards: list[str]) -> None:
    if shards and not os.path.ismount(small_disk):
        pytest.skip("needs root and the right to mount a file system: small files pass a limit on their size")
    cli("encode", "large-base.safetensors", "large.safetensors", "-o", "a")
    place = str(small_disk / out)
    line = cli.fails("decode", "a", "--base", "large-base.safetensors", "-o", place, *shards)
    assert line.startswith(place)
    assert "expected to write it, got '" in line
    assert list(small_disk.iterdir()) == []


def test_all_errors_are_of_one_family(made: Path) -> None:
    with pytest.raises(DtsError):
        dtscodec.open(b"")
