"""Running commands in-process, small checkpoints, and packs changed by hand and signed again."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dtscodec.cli.main import main
from dtscodec.format.container import padding_before
from dtscodec.format.digests import BlockHasher
from dtscodec.format.primitives import canonical_json as canonical
from dtscodec.format.primitives.zstd_frames import compress, decompress
from tests.support import check_against_spec

Tensors = dict[str, torch.Tensor]
Document = dict[str, Any]
Change = Callable[[Document], object]

PACK = "movie.dts.safetensors"
CODED = ("--rank", "0.1")
"""Options under which all that changed is coded, however small the checkpoint."""
FINE_TUNES = ("movie", "tweets")


def how_to_resume(part: str | Path) -> str:
    """What an encode that failed says of its finished tensors."""
    remedy = "the same command resumes the run if its inputs are unchanged, --no-resume starts afresh"
    return f"results are stored in {part}: {remedy}"


class Cli:
    """Runs commands, and checks what holds for every one of them."""

    def __init__(self, capsys: pytest.CaptureFixture[str], root: Path) -> None:
        self._capsys, self._root = capsys, root

    def __call__(self, *arguments: str) -> str:
        """Run a command that must do its work quietly, and return what it prints.

        The spec's decoder checks every pack that is made.
        """
        code, out, err = self.run(*arguments)
        assert (code, err) == (0, ""), err
        for path in [Path(line.split(": ")[-1]) for line in out.splitlines() if arguments[0] in ("encode", "family")]:
            is_plain = path.name == "base.safetensors" and "--plain-base" in arguments
            if path.is_file() and not is_plain:  # No file if its name had to be escaped.
                check_against_spec(path, merged_base(path) if arguments[0] == "family" else arguments[1])
        return out

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))

    def is_cut_off(self, *arguments: str, part: str | Path = "out.part") -> str:
        """As `fails` for an encode that keeps its finished tensors, if any, and says so; return what came in the way.

        They are removed.
        """
        before = snapshot(self._root)
        code, out, err = self.run(*arguments)
        assert (code, out) == (1, "")
        ending = f"; {how_to_resume(part)}\n"
        assert err.startswith("dtscodec: ")
        assert err.endswith(ending) == Path(part).exists(), err
        Path(part).unlink(missing_ok=True)
        assert snapshot(self._root) == before
        return err.removeprefix("dtscodec: ").removesuffix(ending).rstrip("\n")

    def fails(self, *arguments: str) -> str:
        """Run a command that must fail with one line and leave all files as they are; return the line."""
        before = snapshot(self._root)
        code, out, err = self.run(*arguments)
        assert code == 1, (code, out, err)
        assert out == ""
        assert err.count("\n") == 1, err
        assert err.startswith("dtscodec: "), err
        assert err.endswith("\n")
        assert "Traceback" not in err
        assert snapshot(self._root) == before
        return err.removeprefix("dtscodec: ").rstrip("\n")

    def misused(self, *arguments: str) -> str:
        """Run a command line that is wrong; return what it says."""
        before = snapshot(self._root)
        code, out, err = self.run(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("usage: dtscodec")
        assert snapshot(self._root) == before
        return err

    def run(self, *arguments: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        try:
            code = main(arguments)
        except SystemExit as exit:
            code = int(exit.code or 0)
        return code, *self._capsys.readouterr()


def merged_base(path: Path) -> Path | Tensors:
    """What a file that `family` wrote is made against: the base needs nothing."""
    return {} if path.name == "base.safetensors" else path.parent.parent / "base.safetensors"


def snapshot(root: Path) -> dict[str, bytes | None]:
    """Every file under a directory with its bytes, and every directory."""
    paths = {path.relative_to(root).as_posix(): path for path in root.rglob("*")}
    return {name: path.read_bytes() if path.is_file() else None for name, path in paths.items()}


# Checkpoints


def base_tensors() -> Tensors:
    generator = torch.Generator().manual_seed(1)
    return {
        "encoder.weight": torch.randn(48, 32, generator=generator),
        "encoder.bias": torch.randn(48, generator=generator),
        "decoder.weight": torch.randn(32, 48, generator=generator),
        "half.weight": torch.randn(40, 24, generator=generator).half(),
        "embeddings.weight": torch.randn(60, 16, generator=generator),
        "frozen.weight": torch.randn(20, 10, generator=generator),
        "steps": torch.tensor([3, 5]),
        "pooler.weight": torch.randn(4, 4, generator=generator),
    }


def fine_tensors(seed: int) -> Tensors:
    """A fine-tune: most tensors moved, some rows of one, one left alone, one gone, one new, an integer changed."""
    generator = torch.Generator().manual_seed(seed)
    fine = base_tensors()
    del fine["pooler.weight"]
    for name in ("encoder.weight", "encoder.bias", "decoder.weight", "half.weight"):
        noise = 0.02 * torch.randn(fine[name].shape, generator=generator)
        fine[name] = (fine[name].float() + noise).to(fine[name].dtype)
    fine["embeddings.weight"][7:19] += 0.05 * torch.randn(12, 16, generator=generator)
    fine["steps"] = torch.tensor([3, seed])
    fine["classifier.weight"] = torch.randn(2, 32, generator=generator)
    return fine


def write_model(directory: Path, tensors: Tensors, **config: object) -> None:
    """A model directory in the manner of Hugging Face."""
    directory.mkdir()
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    (directory / "config.json").write_text(json.dumps({"model_type": "tiny", **config}))
    (directory / "vocab.txt").write_text("a\nb\nc\n")
    (directory / "modeling.py").write_text("raise SystemExit('code never travels')\n")


def load(path: str | Path) -> Tensors:
    return load_file(path)


def assert_equal(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> None:
    """Same names, dtypes, shapes and bits."""
    assert sorted(ours) == sorted(theirs)
    for name, tensor in ours.items():
        assert (tensor.dtype, tensor.shape) == (theirs[name].dtype, theirs[name].shape), name
        assert bits(tensor) == bits(theirs[name]), name


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.flatten().view(torch.uint8).numpy().tobytes()


# Packs


def write_changed(path: str, pack: bytes, summary: Change = lambda d: None, index: Change = lambda d: None) -> None:
    """Write a pack with another summary and index, and right digests."""
    length = 8 + int.from_bytes(pack[:8], "little")
    header = json.loads(pack[8:length])
    told = json.loads(header["__metadata__"]["dtscodec"])
    arenas = {
        name: (entry["dtype"], entry["shape"], pack[length + begin : length + end])
        for name, entry in sorted(header.items(), key=lambda item: item[1].get("data_offsets", []))
        if name not in ("__metadata__", "digests")
        for begin, end in [entry["data_offsets"]]
    }
    listed = json.loads(decompress(arenas["index"][2], 2**20)[0])
    summary(told)
    index(listed)
    contents = {name: data for name, (_, _, data) in arenas.items()}
    contents["index"] = compress(canonical.dumps(listed), 3)
    if "rows" in contents:
        contents["rows"] = contents["rows"][: decompress(contents["rows"], 2**20)[1]]
    names, offset, entries = list(contents), 64, {"digests": ("U8", [2, 32], 64)}
    for name, following in zip(names, [*names[1:], ""], strict=True):
        end = offset + len(contents[name])
        contents[name] += bytes(padding_before(following, end))
        dtype, shape, data = arenas[name]
        shape = shape if len(data) == len(contents[name]) else [len(contents[name])]
        entries[name] = (dtype, shape, len(contents[name]))
        offset += len(contents[name])
    path_bytes = _signed(told, entries, b"".join(contents.values()))
    Path(path).write_bytes(path_bytes)


def _signed(summary: Document, entries: Mapping[str, tuple[str, list[int], int]], data: bytes) -> bytes:
    document: Document = {"__metadata__": {"dtscodec": canonical.dumps(summary).decode()}}
    offset = 0
    for name, (dtype, shape, size) in entries.items():
        document[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = canonical.dumps(document)
    text += b" " * (-(8 + len(text)) % 32)
    header = len(text).to_bytes(8, "little") + text
    hasher = BlockHasher(2**16)
    hasher.update(data)
    return header + hasher.digests(header) + data


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


@contextlib.contextmanager
def flipped(path: Path, position: int) -> Iterator[None]:
    """The file with one byte changed, for a while."""
    data = path.read_bytes()
    changed = bytearray(data)
    changed[position] ^= 0x10
    path.write_bytes(changed)
    yield
    path.write_bytes(data)
