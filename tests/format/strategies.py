"""Random valid tensors of an index."""

from hypothesis import strategies as st

from dtscodec.format.blocks import Band, BaseRows, Block, LowRank, Raw, Same, Values
from dtscodec.format.dtypes import CODED_DTYPES, DTYPES, TensorSpec, bits_of
from dtscodec.format.index import TensorEntry
from dtscodec.quantize.widths import ALL_BITS

names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)


@st.composite
def specs(draw: st.DrawFn) -> TensorSpec:
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    shape = draw(st.lists(st.integers(0, 6), max_size=4))
    if bits_of(dtype) < 8:  # type: ignore[arg-type]
        shape = [*shape, 4]
    return TensorSpec(dtype, tuple(shape))  # type: ignore[arg-type]


@st.composite
def blocks(draw: st.DrawFn, spec: TensorSpec, height: int, columns: int) -> Block:
    first = draw(st.integers(0, 9))
    base = draw(st.none() | st.builds(BaseRows, names, st.just(first)))
    kinds = ["same", "raw"]
    if spec.dtype in CODED_DTYPES and height * columns:
        kinds += ["values", "lowrank"]
    kind = draw(st.sampled_from(kinds))
    if kind == "same":
        return Same(height, base)
    if kind == "raw":
        return Raw(height)
    rows = draw(st.none() | st.integers(1, height - 1)) if height > 1 else None
    cols = draw(st.none() | st.integers(1, columns - 1)) if columns > 1 else None
    if kind == "values":
        bits = draw(st.sampled_from(ALL_BITS))
        return Values(height, base, rows, cols, bits, draw(st.booleans()) and bits in (4, 8))
    band = st.builds(Band, st.integers(1, 9), st.sampled_from(ALL_BITS))
    return LowRank(height, base, rows, cols, tuple(draw(st.lists(band, min_size=1, max_size=3))), draw(st.booleans()))


@st.composite
def entries(draw: st.DrawFn, name: str) -> TensorEntry:
    spec = draw(specs())
    split = draw(st.integers(1, max(1, len(spec.shape))))
    if bits_of(spec.dtype) < 8:
        split = min(split, len(spec.shape) - 1) or 1
    rows, columns = spec.matrix(split)
    if columns * bits_of(spec.dtype) % 8:
        split, (rows, columns) = 1, spec.matrix(1)
    if columns * bits_of(spec.dtype) % 8:
        return TensorEntry(name, spec, (Raw(rows),))
    heights = [rows]
    if rows > 1 and spec.elements and draw(st.booleans()):
        cut = draw(st.integers(1, rows - 1))
        heights = [cut, rows - cut]
    return TensorEntry(name, spec, tuple(draw(blocks(spec, height, columns)) for height in heights), split)


@st.composite
def tensor_lists(draw: st.DrawFn) -> list[TensorEntry]:
    chosen = sorted(draw(st.sets(names, max_size=4)))
    return [draw(entries(name)) for name in chosen]
