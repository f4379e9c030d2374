"""`best` with a size: the file is never larger, nearly as large, and holds what matters most."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

import dtscodec
from dtscodec import Best, EncodeConfig, MaxError, Paper, Rank, RankShare, Size, __version__
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.checkpoints.stored_tensor import StoredTensor
from dtscodec.encoding.budget.segment_candidates import candidates_of
from dtscodec.encoding.budget.survey import Survey
from dtscodec.encoding.pack_assembler import PackMetadata
from dtscodec.encoding.presets.recipe import LEAST_ERROR, Recipe
from dtscodec.encoding.segments.segmented_tensor import segment_tensor, segment_unchanged
from dtscodec.errors import DtsError, EncodeError
from dtscodec.format.blocks import LowRank, Values
from dtscodec.format.summary import BaseRef, Summary
from dtscodec.quantize.widths import ALL_BITS, Bits
from tests.encoding.fine_tunes import (
    TOUCHED,
    VOCABULARY,
    WIDTH,
    Packed,
    Pair,
    low_rank,
    normal,
    power_law,
    relative_error,
    transformer,
)
from tests.support import make_pack

pytestmark = pytest.mark.slow

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
QUICK = Recipe(rounds=0)
"""What is chosen does not depend on refits."""
HEAD = ("head.weight", "head.bias")

few = settings(deadline=None, max_examples=12)
dtypes = st.sampled_from(DTYPES)


@st.composite
def sizes(draw: st.DrawFn, pair: Pair, least: int = 2_200, most: int = 90_000) -> str:
    """A size in one of the units that comes to about so many bytes of a pair."""
    count = draw(st.integers(least, most))
    unit = draw(st.sampled_from(["B", "kB", "%", "bpp"]))
    whole = {"B": 1, "kB": 1000, "%": pair.nbytes / 100, "bpp": pair.parameters / 8}[unit]
    return f"{count / whole:.0f}B" if unit == "B" else f"{count / whole:.4f}{unit}"


def smallest_size(pair: Pair, **settings: Any) -> int:
    """The smallest size that an encoder says it can reach."""
    with pytest.raises(EncodeError) as caught:
        Packed(pair, size="1B", **settings)
    found = re.search(r"expected at least ([\d,]+) bytes, got 1;", str(caught.value))
    assert found
    return int(found[1].replace(",", ""))


def pair_of(base: dict[str, Tensor], **changed: Tensor) -> Pair:
    return Pair(base, base | changed)


# The size of the file


@few
@given(st.data(), dtypes)
def test_the_file_is_never_larger_than_asked_in_any_unit(data: st.DataObject, dtype: torch.dtype) -> None:
    pair = transformer(dtype)
    size = data.draw(sizes(pair))
    packed = Packed(pair, size=size)
    assert len(packed.file) <= pair.in_bytes(size)
    assert packed.report.pack_bytes == len(packed.file)


@few
@given(st.data(), dtypes)
def test_at_least_99_5_percent_of_the_size_are_used_while_more_would_help(
    data: st.DataObject, dtype: torch.dtype
) -> None:
    pair = transformer(dtype)
    size = data.draw(sizes(pair, 14_000, 70_000))
    packed = Packed(pair, size=size, recipe=QUICK)
    assert 0.995 * pair.in_bytes(size) <= len(packed.file) <= pair.in_bytes(size)


@few
@given(st.integers(2_200, 14_000), dtypes)
def test_of_a_small_size_less_than_two_components_are_left(count: int, dtype: torch.dtype) -> None:
    packed = Packed(transformer(dtype), size=f"{count}B", recipe=QUICK)
    assert count - len(packed.file) < 2 * (2 * WIDTH + WIDTH) / 4


def test_a_size_beyond_the_exact_fine_tune_is_not_used_up_and_loses_nothing() -> None:
    pair = transformer()
    packed = Packed(pair, size="150%")
    assert len(packed.file) < pair.nbytes
    assert packed.report.relative_error == 0
    assert all(torch.equal(packed.decoded[name], tensor) for name, tensor in pair.fine.items())


@few
@given(st.integers(2_200, 90_000), dtypes, st.booleans())
def test_the_size_that_is_planned_is_that_of_the_file(count: int, dtype: torch.dtype, raw_head: bool) -> None:
    pair = transformer(dtype)
    assume(count > 3_000 or not raw_head)
    config = EncodeConfig(Size.parse(f"{count}B"), Best(QUICK), raw=("head*",) if raw_head else ())
    with open_checkpoint(pair.base) as base, open_checkpoint(pair.fine) as fine:
        survey = Survey(config, tuple(fine.specs.values()))
        for name, spec in fine.specs.items():
            ours = StoredTensor(name, spec, fine.read(name))
            theirs = StoredTensor(name, base.specs[name], base.read(name)) if name in base.specs else None
            segmented = segment_unchanged(ours, theirs) or segment_tensor(ours, theirs, config)
            candidates = [candidates_of(segment, config, survey.request) for segment in segmented.segments]
            survey.add(name, spec, segmented.split, candidates)
    summary = Summary(0, base=BaseRef("0" * 64), encoder=f"dtscodec {__version__} {config.describe()}")
    metadata = PackMetadata(summary)
    choices = survey.choose(metadata, survey.budget(metadata))
    packed = Packed(pair, target=config.target, recipe=QUICK, raw=config.raw)
    assert survey.size(choices, metadata) == len(packed.file)


def test_files_that_travel_count_towards_the_size(tmp_path: Path) -> None:
    pair, folders = transformer(), (tmp_path / "base", tmp_path / "fine")
    for folder, state in zip(folders, (pair.base, pair.fine), strict=True):
        folder.mkdir()
        save_file(state, folder / "model.safetensors", {"format": "pt", "of": folder.name})
        words = np.random.default_rng(len(folder.name)).integers(0, 2**63, 300)
        (folder / "vocab.json").write_text(str(words.tolist()))
    size = Size.parse("9kB")
    report = make_pack(*folders, tmp_path / "pack", target=size)
    assert 8_900 <= report.path.stat().st_size == report.pack_bytes <= 9_000
    with dtscodec.open(report.path) as pack:
        assert [file.name for file in pack.index.files] == ["vocab.json"]
    assert make_pack(*folders, tmp_path / "without", target=size, files=False).relative_error < report.relative_error


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_size_below_what_must_be_there_is_refused_and_exactly_that_size_works(dtype: torch.dtype) -> None:
    pair = transformer(dtype)
    for raw in ((), ("head*", "conv*")):
        least = smallest_size(pair, raw=raw)
        assert len(Packed(pair, size=f"{least}B", raw=raw).file) == least
        with pytest.raises(EncodeError, match=f"at least {least:,} bytes, got {least - 1:,}"):
            Packed(pair, size=f"{least - 1}B", raw=raw)


def test_what_is_said_of_a_size_too_small_is_one_line_with_the_smallest_and_the_largest_takers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = {name: normal(rng, 48, 48) for name in "abcd"}
    pair = pair_of(base, **{name: base[name] + normal(rng, 48, 48) for name in "abcd"})
    extra = {f"step{n}": torch.from_numpy(rng.integers(0, 2**62, n)) for n in (10, 30, 20, 40)}
    with pytest.raises(EncodeError) as caught:
        make_pack(pair.base, pair.fine | extra, tmp_path / "p", target=Size.parse("0.01kB"), raw=("a",))
    line = str(caught.value)
    assert re.search(r"expected at least [\d,]+ bytes, got 10;", line)
    takers = re.search(r"cannot be left out \((.*?)\)", line)
    assert takers
    names = [taker.split()[0] for taker in takers[1].split(", ")]
    assert names == ["a", "step40", "step30"]
    assert "`size`" in line
    assert "\n" not in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_larger_size_has_a_smaller_error(dtype: torch.dtype) -> None:
    packs = [
        Packed(transformer(dtype), size=f"{n}B", recipe=LEAST_ERROR) for n in (2_300, 3_000, 5_000, 12_000, 30_000)
    ]
    errors = [packed.report.relative_error for packed in packs]
    assert errors == sorted(errors, reverse=True)
    assert len(set(errors)) == len(errors)


# The default


def large() -> Pair:
    """A pair large enough that 0.08 bits a parameter are more than what must be there."""
    rng = np.random.default_rng(5)
    base = {name: normal(rng, 384, 384) for name in "abc"}
    return pair_of(base, **{name: base[name] + power_law(rng, 384, 384, 0.7) for name in "ab"})


def test_the_default_size_is_0_08_bits_a_parameter() -> None:
    pair = large()
    packed = Packed(pair, recipe=QUICK)
    assert packed.file == Packed(pair, size="0.08bpp", recipe=QUICK).file
    # Two components of these matrices are a tenth of it.
    assert 0.9 * pair.in_bytes("0.08bpp") < len(packed.file) <= pair.in_bytes("0.08bpp")


@pytest.mark.parametrize("raw", [(), ("head*", "conv*")])
def test_the_default_gives_way_to_what_must_be_there(raw: tuple[str, ...]) -> None:
    pair = transformer()
    least = smallest_size(pair, raw=raw)
    assert least > pair.in_bytes("0.08bpp")
    # The texts that say what was asked for differ in length.
    assert least <= len(Packed(pair, raw=raw).file) <= least + 32


@few
@given(st.integers(1, 12), dtypes)
def test_the_default_gives_way_to_deltas_of_exactly_a_low_rank(rank: int, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(rank)
    base = {name: normal(rng, 96, 128) for name in "abc"}
    merged = {name: base[name] + low_rank(rng, 96, 128, rank, rms=3e-3) for name in "ab"}
    pair = Pair(base, {name: tensor.to(dtype) for name, tensor in (base | merged).items()})
    packed = Packed(pair)
    assert len(packed.file) > pair.in_bytes("0.08bpp")
    assert [packed.sizes[name].ranks for name in "abc"] == [(rank,), (rank,), ()]
    assert all(packed.sizes[name].bits == (16,) for name in "ab")


# What is chosen


@few
@given(st.integers(2_200, 60_000), dtypes)
def test_what_did_not_move_costs_nothing_and_comes_back_exactly(count: int, dtype: torch.dtype) -> None:
    pair = transformer(dtype)
    packed = Packed(pair, size=f"{count}B", recipe=QUICK)
    assert (packed.kind("frozen.weight"), packed.sizes["frozen.weight"].size) == ("same", 0)
    assert torch.equal(packed.decoded["frozen.weight"], pair.base["frozen.weight"])
    still = (pair.fine["embed.weight"] == pair.base["embed.weight"]).all(1)
    assert torch.equal(packed.decoded["embed.weight"][still], pair.base["embed.weight"][still])


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_tensors_that_only_rounding_to_half_precision_changed_are_same(dtype: torch.dtype) -> None:
    pair = transformer()
    fine = {name: tensor.to(dtype) for name, tensor in pair.base.items()}
    fine["layer.0.q.weight"] = pair.fine["layer.0.q.weight"].to(dtype)
    packed = Packed(Pair(pair.base, fine))
    assert {name for name in fine if packed.kind(name) != "same"} <= {"layer.0.q.weight"}
    assert Packed(Pair(pair.base, fine), size="20kB").kind("layer.0.q.weight") != "same"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_new_head_is_coded_in_8_bits_row_by_row_when_the_size_is_tight(dtype: torch.dtype) -> None:
    pair = transformer(dtype)
    packed = Packed(pair, size=f"{smallest_size(pair)}B")
    (block,) = packed.blocks["head.weight"]
    assert isinstance(block, Values)
    assert (block.bits, block.per_row, block.base) == (8, True, None)
    true = pair.fine["head.weight"].float()
    step = true.abs().amax(1, keepdim=True) / 127
    # Half a step, and what the scale's and the result's own rounding add.
    assert ((packed.decoded["head.weight"].float() - true).abs() <= step * 1.05).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_new_head_that_is_to_be_raw_is_exact_at_any_size(dtype: torch.dtype) -> None:
    pair = transformer(dtype)
    for size in (f"{smallest_size(pair, raw=('head*',))}B", "20kB"):
        packed = Packed(pair, size=size, raw=("head*",))
        for name in HEAD:
            assert packed.kind(name) == "raw"
            assert torch.equal(packed.decoded[name], pair.fine[name])


@pytest.mark.parametrize("size", ["2.5kB", "20kB"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_and_infinity_in_a_new_tensor_are_kept_exactly(value: float, size: str, dtype: torch.dtype) -> None:
    pair = transformer(dtype)
    head = pair.fine["head.weight"].clone()
    head[1, 3] = value
    packed = Packed(replace(pair, fine=pair.fine | {"head.weight": head}), size=size)
    assert packed.kind("head.weight") == "raw"
    assert packed.decoded["head.weight"].view(torch.uint8).equal(head.view(torch.uint8))


@pytest.mark.parametrize("shape", [(100, 80), (80, 100), (3000,), (30, 10, 4), (1, 500)], ids=str)
def test_a_new_tensor_is_never_left_out_however_small_the_size(shape: tuple[int, ...]) -> None:
    base = transformer().base
    pair = pair_of(base, new=normal(np.random.default_rng(0), *shape))
    packed = Packed(pair, size=f"{smallest_size(pair) + 64}B")
    true, ours = pair.fine["new"], packed.decoded["new"]
    assert packed.sizes["new"].size > 0
    # Of noise one component holds little, but some.
    assert (ours - true).norm() < true.norm()


@few
@given(st.integers(2_600, 40_000), dtypes)
def test_of_an_embedding_of_which_few_rows_changed_only_these_are_coded(count: int, dtype: torch.dtype) -> None:
    packed = Packed(transformer(dtype), size=f"{count}B", recipe=QUICK)
    (block,) = packed.blocks["embed.weight"]
    assert isinstance(block, LowRank)
    assert (block.height, block.rows, block.cols) == (VOCABULARY, TOUCHED, None)


def strong_rows() -> Pair:
    """A tall matrix all of whose rows changed, an eighth of them fifty times as much."""
    rng = np.random.default_rng(7)
    base = {"w": normal(rng, 1024, 32)}
    delta = normal(rng, 1024, 32, scale=1e-4)
    delta[::8] *= 50
    return pair_of(base, w=base["w"] + delta)


def test_of_a_tall_matrix_whose_rows_changed_unevenly_those_that_changed_most_are_coded() -> None:
    pair = strong_rows()
    packed = Packed(pair, size="2kB")
    (block,) = packed.blocks["w"]
    assert isinstance(block, LowRank)
    assert block.rows is not None
    coded = (packed.decoded["w"] != pair.base["w"]).any(1)
    changed = pair.delta("w").norm(dim=1)
    assert int(coded.sum()) == block.rows
    assert changed[coded].min() >= changed[~coded].max()


def test_a_recipe_without_row_subsets_codes_all_rows_that_changed() -> None:
    (block,) = Packed(strong_rows(), size="2kB", recipe=Recipe(row_subsets=False)).blocks["w"]
    assert isinstance(block, LowRank)
    assert block.rows is None


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_convolutions_are_coded_as_matrices(dtype: torch.dtype) -> None:
    packed = Packed(transformer(dtype), size="20kB")
    (block,) = packed.blocks["conv.weight"]
    assert isinstance(block, LowRank)
    assert (block.height, block.rows) == (16, None)


@pytest.mark.parametrize("bits", ALL_BITS)
def test_the_widths_are_those_of_the_recipe(bits: Bits) -> None:
    packed = Packed(transformer(), size="20kB", recipe=Recipe(widths=(bits,)))
    found = {band.bits for (block, *_) in packed.blocks.values() if isinstance(block, LowRank) for band in block.bands}
    assert found == {bits}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_change_that_is_ten_times_as_strong_gets_more_bytes(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(3)
    base = {name: normal(rng, 96, 96) for name in "ab"}
    delta = power_law(rng, 96, 96, 0.5)
    fine = {"a": base["a"] + delta, "b": base["b"] + 10 * delta}
    packed = Packed(Pair(base, {name: tensor.to(dtype) for name, tensor in fine.items()}), size="3kB")
    assert packed.sizes["b"].size > 2 * packed.sizes["a"].size


# The report


@few
@given(st.integers(2_200, 40_000))
def test_left_out_is_the_share_of_the_squared_delta_in_tensors_that_changed_and_are_left_as_they_were(
    count: int,
) -> None:
    pair = transformer()
    packed = Packed(pair, size=f"{count}B", recipe=QUICK)
    squares = {name: float(pair.delta(name).square().sum()) for name in pair.shared}
    left = sum(square for name, square in squares.items() if packed.kind(name) == "same")
    assert packed.report.left_out == pytest.approx(left / sum(squares.values()), rel=1e-4, abs=1e-12)
    # What is left out is a part of what is lost, and with a gain more than that may be lost.
    assert packed.report.left_out <= packed.report.relative_error**2 * (1 + 1e-6)


@few
@given(st.integers(2_200, 90_000))
def test_the_relative_error_is_that_of_the_decoded_weights(count: int) -> None:
    pair = transformer()
    packed = Packed(pair, size=f"{count}B", recipe=QUICK)
    # Rounding the weights to float32 adds a little.
    assert relative_error(pair, packed.decoded) == pytest.approx(packed.report.relative_error, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("size", ["1kB", "1.5kB", "2kB", "3kB"])
def test_the_relative_error_counts_rows_that_are_left_out(size: str) -> None:
    pair = strong_rows()
    packed = Packed(pair, size=size)
    assert packed.report.relative_error == pytest.approx(relative_error(pair, packed.decoded), rel=1e-3)


@pytest.mark.parametrize("error", [0.8, 0.6, 0.4, 0.2])
def test_an_error_that_is_asked_for_is_kept_with_the_rows_that_are_left_out(error: float) -> None:
    pair = strong_rows()
    assert relative_error(pair, Packed(pair, target=MaxError(error)).decoded) <= error * (1 + 1e-5)


def test_nothing_is_left_out_of_a_fine_tune_that_did_not_change() -> None:
    base = transformer().base
    packed = Packed(Pair(base, base))
    assert (packed.report.left_out, packed.report.relative_error) == (0, 0)
    assert {size.kind for size in packed.sizes.values()} == {"same"}


# The same bytes


@settings(deadline=None, max_examples=4)
@given(st.integers(2_200, 20_000), dtypes)
def test_encoding_again_gives_the_same_bytes_on_any_number_of_threads(count: int, dtype: torch.dtype) -> None:
    pair, threads = transformer(dtype), torch.get_num_threads()
    files = set()
    try:
        for number in (1, 2, 2):
            torch.set_num_threads(number)
            files.add(Packed(pair, size=f"{count}B").file)
    finally:
        torch.set_num_threads(threads)
    assert len(files) == 1


def test_the_order_of_the_names_does_not_matter() -> None:
    pair = transformer()
    backwards = Pair(*(dict(reversed(state.items())) for state in (pair.base, pair.fine)))
    assert Packed(pair, size="6kB").file == Packed(backwards, size="6kB").file


# Settings


def unchecked(kind: Any, *values: Any, **settings: Any) -> Callable[[], object]:
    """A call that mypy would refuse."""
    return partial(kind, *values, **settings)


BAD = ["2MB", 4, 0.5, float("nan"), True]
MISTAKES: list[Callable[[], object]] = [
    *(unchecked(EncodeConfig, target, Paper()) for target in (Size.parse("1%"), MaxError(0.5))),
    *(unchecked(EncodeConfig, target) for target in BAD),
    *(unchecked(EncodeConfig, preset=preset) for preset in ("worst", "best", "paper", Best, None)),
    unchecked(Paper, "row"),
    *(unchecked(Rank, rank) for rank in (0, -1, 1.5, 1.0, 0.0, -0.5, float("nan"), True, "4")),
    *(unchecked(RankShare, share) for share in (0, -1, 1.5, 0.0, -0.5, float("nan"), True, "0.1")),
    *(unchecked(MaxError, error) for error in (0, 1, -0.1, 1.5, float("nan"), float("inf"), True, "0.1")),
    unchecked(EncodeConfig, raw="head*"),
]


@pytest.mark.parametrize("make", MISTAKES, ids=str)
def test_settings_that_are_out_of_range_or_exclude_each_other_raise_with_expected_and_got(
    make: Callable[[], object],
) -> None:
    with pytest.raises(ValueError, match=r"^expected .*, got [^\n]*$"):
        make()


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (EncodeConfig(), "preset=best"),
        (EncodeConfig(Size.parse("2MB")), "preset=best"),
        (EncodeConfig(Rank(1)), "preset=best rank=1"),
        (EncodeConfig(RankShare(1)), "preset=best rank=1.0"),
        (EncodeConfig(MaxError(0.3)), "preset=best error=0.3"),
        (EncodeConfig(MaxError(0.3), will_be_fitted=True), "preset=best error=0.3 distilled"),
        (EncodeConfig().for_fitting(), "preset=best distilled"),
        (EncodeConfig(preset=Paper()), "preset=paper rank=0.1"),
        (EncodeConfig(Rank(16), Paper("vector")), "preset=paper rank=16 levels=vector"),
        (EncodeConfig(preset=Paper()).for_fitting(), "preset=paper rank=0.1 distilled"),
        (EncodeConfig(preset=Paper("vector")).for_fitting(), "preset=paper rank=0.1 levels=vector distilled"),
    ],
)
def test_a_pack_says_how_it_was_encoded_in_these_words(config: EncodeConfig, text: str) -> None:
    assert config.describe() == text


def test_settings_that_are_refused_raise_an_error_of_the_package_as_all_that_it_raises_on_purpose() -> None:
    with pytest.raises(DtsError):
        MaxError(2.0)


@pytest.mark.parametrize("settings", [{}, {"target": RankShare(0.3)}, {"target": Rank(4), "preset": Paper("vector")}])
def test_the_preset_paper_has_no_size_and_keeps_heads_exactly(settings: dict[str, Any]) -> None:
    pair = transformer()
    packed = Packed(pair, **{"preset": Paper(), **settings})
    assert "size" not in packed.encoder
    assert all(torch.equal(packed.decoded[name], pair.fine[name]) for name in HEAD)
