"""The file: writer and reader are inverses, its layout, and every damage is noticed."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from dtscodec.errors import DtsError, FormatError
from dtscodec.files.range_reader import MemoryFile
from dtscodec.format.blocks import LowRank, Mask, Raw, Values, join_masks
from dtscodec.format.digests import BlockHasher, CheckedBytes, digest_block_size
from dtscodec.format.index import TensorEntry
from dtscodec.format.layout import plan_arenas
from dtscodec.format.reader import PackReader
from dtscodec.format.stored_files import compress_change
from dtscodec.format.streams import Streams, numbers_from_bytes, numbers_to_bytes
from dtscodec.format.summary import BaseRef, Summary
from dtscodec.format.writer import PackWriter
from tests.format.strategies import tensor_lists

CHANGE = compress_change(b"other" * 100, b"word other")


def streams_for(entry: TensorEntry, random: np.random.Generator) -> list[Streams]:
    """Random streams that fit the blocks of a tensor; their codes are zeros, whose padding is sound."""
    result = []
    for block in entry.blocks:
        sizes = block.stream_sizes(entry.columns, entry.spec.dtype)
        masks: list[Mask | None] = [None, None]
        if block.is_coded:
            chosen = ((block.rows, block.height), (block.cols, entry.columns))
            masks = [None if k is None else np.arange(n) < k for k, n in chosen]
        numbers = np.sort(np.abs(random.standard_normal(sizes.numbers))).astype(np.float32)
        bands = tuple(bytes(size) for size in sizes.bands)
        result.append(Streams(join_masks(*masks), numbers, bands, random.bytes(sizes.raw)))
    return result


def write(tensors: list[TensorEntry], numbers: str = "F32", files: bool = True) -> tuple[bytes, list[list[Streams]]]:
    random = np.random.default_rng(0)
    written = [streams_for(entry, random) for entry in tensors]
    with PackWriter(numbers) as writer:
        for entry, streams in zip(tensors, written, strict=True):
            writer.add(entry, streams)
        if files:
            writer.carry_file("config.json", b'{"a": 1}')
            writer.carry_file("note.txt", b"word " * 100)
            writer.change_file("tokenizer.json", 500, CHANGE, "ef" * 32)
            writer.name_file("vocab.txt", "ab" * 32)
        names = {base.name for entry in tensors for block in entry.blocks if (base := getattr(block, "base", None))}
        file = io.BytesIO()
        base = BaseRef("cd" * 32) if names else None
        writer.write(file, Summary(0, base=base), {name: name.encode().ljust(4, b".")[:4] for name in names})
    return file.getvalue(), written


@settings(max_examples=60, deadline=None)
@given(tensor_lists(), st.sampled_from(["F32", "BF16"]))
def test_every_stream_reads_back_as_it_was_written(tensors: list[TensorEntry], numbers: str) -> None:
    data, written = write(tensors, numbers)
    reader = PackReader(MemoryFile(data), "pack")
    assert list(reader.index.tensors) == tensors
    assert sum(reader.check_all()) == len(data) - reader.arena_bytes()["header"] - reader.arena_bytes()["digests"]
    for entry, expected in zip(tensors, written, strict=True):
        for (_, _, got), streams in zip(reader.blocks(entry.name), expected, strict=True):
            assert (got.bitmaps, got.bands, got.raw) == (streams.bitmaps, streams.bands, streams.raw)
            stored = numbers_from_bytes(numbers_to_bytes(streams.numbers, numbers), numbers)
            assert np.array_equal(got.numbers, stored)
    assert reader.file(reader.index.files[0]) == b'{"a": 1}'  # type: ignore[arg-type]
    assert reader.file(reader.index.files[1]) == b"word " * 100  # type: ignore[arg-type]
    assert reader.change(reader.index.files[2]) == CHANGE  # type: ignore[arg-type]


@settings(max_examples=30, deadline=None)
@given(tensor_lists())
def test_a_pack_is_a_safetensors_file(tensors: list[TensorEntry]) -> None:
    data, _ = write(tensors)
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pack.safetensors")
        path.write_bytes(data)
        with safe_open(path, "np") as file:
            assert {"digests", "index"} <= set(file.keys())
            assert set(file.metadata()) == {"dtscodec"}


@given(tensor_lists())
@settings(max_examples=30, deadline=None)
def test_aligned_arenas_begin_at_multiples_of_32(tensors: list[TensorEntry]) -> None:
    data, _ = write(tensors)
    arenas = CheckedBytes(MemoryFile(data), "pack").header.arenas
    assert all(arenas[name].begin % 32 == 0 for name in ("numbers", "codes", "raw") if name in arenas)


@given(st.integers(1, 200_000), st.integers(1, 200_000), st.integers(1, 200_000))
def test_the_number_of_digests_always_fits_the_padding_it_causes(index: int, codes: int, raw: int) -> None:
    contents = {"index": ("U8", (index,)), "codes": ("U8", (codes,)), "raw": ("U8", (raw,))}
    planned = plan_arenas(contents, 2**16)
    total = sum(shape[0] for name, (_, shape) in planned.items() if name != "digests")
    assert planned["digests"][1] == (1 + -(-total // 2**16), 32)


@given(st.integers(0, 2**40))
def test_a_digest_block_is_the_smallest_that_needs_at_most_4096_rows(size: int) -> None:
    block = digest_block_size(size)
    assert block in {2**power for power in range(16, 25)}
    assert size <= 4096 * block or block == 2**24
    assert block == 2**16 or size > 4096 * (block // 2)


@given(st.lists(st.binary(max_size=100), max_size=8))
def test_hashing_does_not_depend_on_how_bytes_are_cut(pieces: list[bytes]) -> None:
    one, many = BlockHasher(64), BlockHasher(64)
    one.update(b"".join(pieces))
    for piece in pieces:
        many.update(piece)
    assert one.digests(b"h") == many.digests(b"h")


def small_pack() -> bytes:
    from dtscodec.format.blocks import Band, BaseRows, Same
    from dtscodec.format.dtypes import TensorSpec

    base = BaseRows("w", 0)
    return write(
        [
            TensorEntry("a", TensorSpec("F32", (5,)), (Values(5, BaseRows("a", 0), 3, None, 2),)),
            TensorEntry("b", TensorSpec("U8", (3,)), (Raw(3),)),
            TensorEntry("w", TensorSpec("F32", (4, 3)), (LowRank(4, base, None, 2, (Band(1, 2), Band(1, 8))),)),
            TensorEntry("z", TensorSpec("F32", (2,)), (Same(2, None),)),
        ]
    )[0]


def read_all(data: bytes) -> None:
    for _ in PackReader(MemoryFile(data), "pack").check_all():
        pass


def test_every_flipped_byte_is_noticed() -> None:
    data = small_pack()
    read_all(data)
    for position in range(len(data)):
        for bits in (0x01, 0xFF):
            damaged = bytearray(data)
            damaged[position] ^= bits
            with pytest.raises(DtsError):
                read_all(bytes(damaged))


def test_every_truncation_is_noticed() -> None:
    data = small_pack()
    for length in range(len(data)):
        with pytest.raises(FormatError) as caught:
            read_all(data[:length])
        assert caught.value.reason == "truncated"


def test_a_byte_too_many_is_noticed() -> None:
    with pytest.raises(FormatError) as caught:
        read_all(small_pack() + b"\0")
    assert caught.value.reason == "layout"


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_give_a_pack_or_a_format_error(data: bytes) -> None:
    for attempt in (data, len(data).to_bytes(8, "little") + data):
        with pytest.raises(FormatError):
            read_all(attempt)


def test_a_range_read_checks_the_digest_blocks_that_it_touches_and_no_others() -> None:
    from dtscodec.format.dtypes import TensorSpec

    entries = [TensorEntry(name, TensorSpec("U8", (2**16,)), (Raw(2**16),)) for name in "abc"]
    data = bytearray(write(entries, files=False)[0])
    data[-1] ^= 1  # in the last tensor
    reader = PackReader(MemoryFile(bytes(data)), "pack")
    assert [block for _, block, _ in reader.blocks("a")]
    with pytest.raises(FormatError) as caught:
        list(reader.blocks("c"))
    assert caught.value.reason == "checksum"


def test_streams_that_do_not_fit_their_block_are_not_written() -> None:
    from dtscodec.format.dtypes import TensorSpec

    with PackWriter() as writer, pytest.raises(ValueError, match="expected streams"):
        writer.add(TensorEntry("b", TensorSpec("U8", (3,)), (Raw(3),)), [Streams(raw=b"four")])


def test_tensors_out_of_order_are_not_written() -> None:
    from dtscodec.format.dtypes import TensorSpec

    entry = TensorEntry("b", TensorSpec("U8", (0,)), (Raw(0),))
    with PackWriter() as writer:
        writer.add(entry, [Streams()])
        with pytest.raises(ValueError, match="ascending"):
            writer.add(entry, [Streams()])


def test_a_file_cut_short_while_it_is_open_is_an_error(tmp_path: Path) -> None:
    from dtscodec.files.range_reader import LocalFile

    path = tmp_path / "pack"
    path.write_bytes(small_pack())
    source = LocalFile(path)
    reader = PackReader(source, "pack")
    list(reader.blocks("b"))
    path.write_bytes(path.read_bytes()[:-80])
    with pytest.raises(FormatError) as caught:
        list(reader.blocks("b"))
    reader.close()
    assert caught.value.reason == "truncated"
