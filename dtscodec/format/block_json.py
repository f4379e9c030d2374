"""Blocks <-> canonical JSON (spec sections 4.3 and 4.4)."""

from dtscodec.format.blocks import MAX_COMPONENTS, Band, BaseRows, Block, LowRank, Raw, Same, Tie, Values
from dtscodec.format.primitives.canonical_json import Json
from dtscodec.format.primitives.json_fields import Fields
from dtscodec.format.tensor_names import check_names
from dtscodec.quantize.widths import as_bits


def block_json(block: Block, own: BaseRows) -> dict[str, Json]:
    """A block without its height; the inverse of `parse_block`."""
    document = _own_json(block)
    return document if isinstance(block, Tie | Raw) else document | _base_json(block.base, own)


def _own_json(block: Block) -> dict[str, Json]:
    if isinstance(block, Same):
        return {"kind": "same"}
    if isinstance(block, Tie):
        return {"kind": "tie", "to": block.to}
    if isinstance(block, Raw):
        return {"kind": "raw"} if block.planes is None else {"kind": "raw", "planes": list(block.planes)}
    document: dict[str, Json]
    if isinstance(block, Values):
        document = {"kind": "values", "bits": block.bits}
        if block.per_row:
            document["per"] = "row"
    else:
        document = {"kind": "lowrank", "bands": [[band.rank, band.bits] for band in block.bands]}
        if block.per_vector:
            document["levels"] = "vector"
    for key, count in (("rows", block.rows), ("cols", block.cols)):
        if count is not None:
            document[key] = count
    return document


def parse_block(fields: Fields, height: int, own: BaseRows) -> Block:
    """Read a block; the inverse of `block_json`.

    Parameters
    ----------
    fields : Fields
        What is left over is the caller's to refuse.
    height : int
        Its rows.
    own : BaseRows
        The base rows that it has unless it says otherwise.

    Raises
    ------
    ValueError
        Rule B3; also OverflowError for too many components.
    UnsupportedError
        An unknown kind.
    """
    kind = fields.take("kind", str)
    if kind == "same":
        return Same(height, _parse_base(fields, own))
    if kind == "tie":
        return Tie(height, fields.take("to", str))
    if kind == "raw":
        planes = tuple(fields.take_list("planes", int)) if "planes" in fields else None
        return Raw(height, planes)
    if kind not in ("values", "lowrank"):
        fields.unknown(f"kind {kind!r}", "4.3")
    base = _parse_base(fields, own)
    rows, cols = fields.take("rows", int, None), fields.take("cols", int, None)
    if kind == "values":
        per_row = _parse_flag(fields, "per", "row")
        return Values(height, base, rows, cols, as_bits(fields.take("bits", int)), per_row)
    bands = tuple(_parse_band(item) for item in fields.take_list("bands", list))
    if sum(band.rank for band in bands) > MAX_COMPONENTS:
        raise OverflowError(f"expected at most {MAX_COMPONENTS} components in a block, got more")
    return LowRank(height, base, rows, cols, bands, _parse_flag(fields, "levels", "vector"))


def _parse_flag(fields: Fields, key: str, value: str) -> bool:
    given = fields.take(key, str, None)
    if given not in (None, value):
        raise ValueError(f"expected {value!r} for {key!r}, got {given!r}")
    return given is not None


def _parse_band(item: list[Json]) -> Band:
    fields = Fields(dict(zip(("rank", "bits"), item, strict=False)), "a band")
    if len(item) != 2:
        raise ValueError(f"expected [rank, bits] for a band, got {item!r:.60}")
    return Band(fields.take("rank", int), as_bits(fields.take("bits", int)))


def _base_json(base: BaseRows | None, own: BaseRows) -> dict[str, Json]:
    if base is None:
        return {"base": None}
    if base.first != own.first:
        return {"base": [base.name, base.first]}
    return {} if base.name == own.name else {"base": base.name}


def _parse_base(fields: Fields, own: BaseRows) -> BaseRows | None:
    if "base" not in fields:
        check_names([own.name])  # which `prefix` may have made
        return own
    value = fields.take_any("base")
    if value is None:
        return None
    name, first = value if isinstance(value, list) and len(value) == 2 else (value, own.first)
    if not isinstance(name, str) or not isinstance(first, int) or isinstance(first, bool):
        raise ValueError(f"expected a name, [name, first row] or null for 'base', got {value!r:.60}")
    check_names([name])
    return BaseRows(name, first)
