"""The sections of a pack's page, each a function of the pack's statistics."""

from dtscodec.messages import listed, number, percent, size
from dtscodec.packs.claims import claim_words
from dtscodec.report.heat_map import MAX_HEAT_MAP_ROWS, Quantity, heat_maps
from dtscodec.report.markup import Markup, bar, element, join, legend, table_element
from dtscodec.report.module_grid import ModuleGrid, TensorGroup, by_module, module_grid
from dtscodec.report.spectrum_plot import DEPTH_STEPS, spectra
from dtscodec.report.statistics import CODE_PARTS, FileStatistics, PackStatistics, TensorStatistics

KIND_TEXTS = {
    "lowrank": "low-rank deltas",
    "values": "one code per element",
    "raw": "exact bytes",
    "mixed": "tensors of several kinds",
    "same": "unchanged from the base",
    "tie": "tied to another tensor",
    "files": "configuration and tokenizer files",
    "bitmaps": "bitmaps of coded rows and columns",
    "overhead": "index, digests, padding",
    "residual": "the residual layer",
}
_PARTS = {bits: f"{bits}-bit codes" for bits in CODE_PARTS} | {
    "numbers": "scales, levels, norms",
    "exact": "exact bytes",
}
_SHORT = 240
"""Width of the bars in tables, in pixels."""

MAX_MODULES = 60
MAX_REASONS = 100


def section(title: str, note: str, *content: str) -> Markup:
    """Return a section of the page: heading, note and content."""
    return element("section", element("h2", title), element("p", note, class_="note"), *content)


def figures(pack: PackStatistics) -> Markup:
    """Return the most important figures, in large type."""
    entries = [
        (size(pack.size), f"on disk; the fine-tune takes {size(pack.fine_tune_size)}"),
        (percent(pack.size, pack.fine_tune_size), "of the fine-tune"),
        (f"{pack.bits:.3f}", f"bits a parameter, of {_count(pack.parameters)}"),
    ]
    if pack.closeness is not None:
        entries.append((number(pack.closeness.error), f"relative error; cosine {number(pack.closeness.cosine)}"))
    else:
        entries.append((f"{len(pack.tensors):,}", "tensors"))
    return element("div", *(element("div", element("b", large), element("span", small)) for large, small in entries),
                   class_="figures")  # fmt: skip


def identity(pack: PackStatistics) -> Markup:
    """Return pack id, base, encoder, the author's claim and file name."""
    base = pack.base
    place = " at ".join(part for part in (base.repo, base.revision) if part) if base else ""
    entries = {
        "pack id": pack.id,
        "base": f"{place} {base.digest}".strip() if base else "none needed",
        "encoder": pack.encoder or "-",
        **({"author's claim": claim_words(pack.claim)} if pack.claim else {}),
        "file": pack.name,
    }
    return element("dl", *(join([element("dt", name), element("dd", value)]) for name, value in entries.items()))


def kinds(pack: PackStatistics) -> Markup:
    """Return the bytes of the file by kind."""
    present = sorted((kind for kind in pack.kinds if kind.size or kind.count), key=lambda kind: -kind.size)
    rows = [
        [
            join([element("i", Markup(""), class_=f"k{kind.kind}"), KIND_TEXTS[kind.kind]]),
            _amount(kind.count),
            _amount(kind.parameters),
            f"{kind.size:,}",
            percent(kind.size, pack.size),
        ]
        for kind in present
    ]
    whole = [["all", f"{len(pack.tensors):,}", f"{pack.parameters:,}", f"{pack.size:,}", percent(1, 1)]]
    parts = {kind.kind: kind.size for kind in present}
    picture = bar(parts, pack.size, 860, 18)
    head = ["kind", "count", "parameters", "bytes", "share"]
    return section(
        "Where the bytes go", "Every byte of the file.", picture, table_element("Bytes by kind", head, rows + whole)
    )


def widths(pack: PackStatistics) -> Markup:
    """Return bytes by width for each module, with one row for all small modules together."""
    groups = {name: group for name, group in by_module(pack.tensors).items() if group.size}
    ordered = sorted(groups.items(), key=lambda item: -item[1].size)
    # A row for each module of at least 1 % of the pack, and one for all others if there are several.
    chosen = {name: group for name, group in ordered[:MAX_MODULES] if group.size >= pack.size / 100}
    small = [group for name, group in ordered if name not in chosen]
    if len(small) > 1:
        joined = tuple(tensor for group in small for tensor in group.tensors)
        chosen[f"{len(small):,} smaller modules"] = TensorGroup(joined)
    else:
        chosen = dict(ordered)
    # The bars of all modules have one scale.
    largest = max((group.size for group in chosen.values()), default=0)
    compared = pack.closeness is not None
    rows = [_module_row(name, group, largest, compared) for name, group in chosen.items()]
    head = ["module", "bytes by width", "bytes", "bits/param", "mean rank", *(["error"] if compared else [])]
    totals = TensorGroup(pack.tensors).parts
    entries = [(part, f"{_PARTS[part]}: {size(count)}") for part, count in totals.items() if count]
    note = "All layers together; modules without bytes are not listed."
    return section("Bits by module", note, legend(entries), table_element("Bytes by module", head, rows, left=2))


def _module_row(name: str, group: TensorGroup, largest: int, compared: bool) -> list[str]:
    picture = bar(group.parts, largest, _SHORT)
    row = [name, picture, f"{group.size:,}", f"{group.bits:.3f}", number(group.rank, 1)]
    return [*row, number(group.error)] if compared else row


def quantities(grid: ModuleGrid, with_error: bool) -> list[Quantity]:
    """Return the quantities of heat maps, each with its own scale.

    Parameters
    ----------
    grid : ModuleGrid
        Groups of tensors, which the ends of the scales depend on.
    with_error : bool
        Show the relative error, too.
    """
    # Tensors outside of layers, such as a new head, may exceed all layers, and on their scale layers would look alike.
    groups = [group for row in grid.layers.values() for group in row.values()] or [*grid.others.values()]
    rank = max((group.rank or 0 for group in groups), default=0)
    bits = max((group.bits for group in groups), default=0)
    shown = [
        Quantity("rank", rank, lambda group: group.rank, lambda value: f"{value:.0f}"),
        Quantity("bits a parameter", bits, lambda group: group.bits, lambda value: f"{value:.2f}"),
    ]
    if with_error:
        shown.append(Quantity("relative error", 1.0, lambda group: group.error, lambda value: f"{value:.2f}"))
    return shown


def layers(pack: PackStatistics) -> Markup:
    """Return heat maps over depth and module."""
    grid = module_grid(pack.tensors)
    note = "Matrices only: depth from left to right, and matrices outside of layers below."
    hidden = sum(max(0, len(rows) - MAX_HEAT_MAP_ROWS) for rows in (grid.layers, grid.others))
    note += f" {hidden} more modules are in the table of all tensors only." if hidden else ""
    if not grid.layers and not grid.others:
        return section("Layer by layer", "The pack has no matrices.")
    picture = heat_maps(grid, quantities(grid, pack.closeness is not None))
    return section("Layer by layer", note, element("div", picture, class_="wide"))


def spectrum(pack: PackStatistics) -> Markup:
    """Return the spectra of low-rank tensors."""
    picture = spectra(pack.tensors)
    if picture is None:
        return section("Spectra", "No tensor is stored with low rank.")
    note = (
        "Norms of the decoded components, descending: the singular values that the pack stores. "
        "One line per layer, which ends with a dot at the stored rank."
    )
    if pack.closeness is not None:
        note += " The part that is left out is given as a share of the delta's energy, its squared norm."
    colours = [element("i", Markup(""), class_=f"d{step} line") for step in range(DEPTH_STEPS)]
    scale = element("p", element("span", "first layer "), *colours, element("span", " last layer"), class_="legend")
    return section("Spectra", note, scale, element("div", picture, class_="wide"))


def reasons(pack: PackStatistics) -> Markup:
    """Return the tensors that are not stored as a delta, and why."""
    entries = [tensor for tensor in pack.tensors if tensor.reason]
    if not entries:
        return section("Exact or new", "None: every tensor is stored as a delta, or equals the base's.")
    rows = [[t.name, t.reason or "", _shape(t), t.dtype, f"{t.size:,}"] for t in entries[:MAX_REASONS]]
    hidden = len(entries) - len(rows)
    note = "Tensors that are not stored as a delta, and why." + (f" {hidden} more are listed below." if hidden else "")
    head = ["tensor", "why", "shape", "dtype", "bytes"]
    return section("Exact or new", note, table_element("Tensors that are not stored as a delta", head, rows, left=2))


def files(pack: PackStatistics) -> Markup:
    """Return the auxiliary files, and the tensors that only the base has."""
    rows = [
        [file.name, _where(file), _amount(file.size), _amount(file.stored)]
        for file in pack.files
    ]  # fmt: skip
    gone = f" Only in the base, so not decoded: {listed(pack.absent, 20)}." if pack.absent else ""
    if not rows:
        return section("Files", f"The pack has no configuration or tokenizer files.{gone}")
    head = ["file", "where", "bytes", "stored"]
    return section(
        "Files",
        f"Configuration and tokenizer files, which are decoded with the weights.{gone}",
        table_element("Files", head, rows, left=2),
    )


def _where(file: FileStatistics) -> str:
    if file.stored is None:
        return "beside the base"
    return "in the pack, as a change of the base's" if file.is_changed else "in the pack"


def tensors(pack: PackStatistics) -> Markup:
    """Return the table of all tensors, which is collapsed at first."""
    head = ["tensor", "kind", "dtype", "shape", "rank", "width", "bytes", "bits/param"]
    head += ["error"] if pack.closeness else []
    rows = [_row(tensor, pack.closeness is not None) for tensor in pack.tensors]
    summary = element("summary", f"All {len(rows):,} tensors")
    return element("section", element("details", summary, table_element("All tensors", head, rows, left=3)))


def _row(tensor: TensorStatistics, compared: bool) -> list[str]:
    widths = ", ".join(part for part in CODE_PARTS if part in tensor.parts)
    error = ["exact" if tensor.exact else number(tensor.error)] if compared else []
    rank = "-" if tensor.rank is None else f"{tensor.rank:.1f}".removesuffix(".0")
    return [
        tensor.name, tensor.kind, tensor.dtype, _shape(tensor), rank, widths or "-", f"{tensor.size:,}",
        f"{tensor.bits:.3f}", *error,
    ]  # fmt: skip


def _shape(tensor: TensorStatistics) -> str:
    return " × ".join(map(str, tensor.shape)) or "scalar"


def _amount(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def _count(parameters: int) -> str:
    """Return a number of parameters in short form.

    >>> _count(22_713_986), _count(6_700_000_000), _count(80)
    ('22.7 M', '6.7 B', '80')
    """
    for scale, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if parameters >= scale:
            return f"{parameters / scale:.1f} {unit}"
    return str(parameters)
