"""The sections of a pack's page: each from pack to markup."""

from dtscodec.messages import listed, number, percent, size
from dtscodec.report.heat_map import MAX_HEAT_MAP_ROWS, Quantity, heat_maps
from dtscodec.report.markup import Markup, bar, element, join, legend, table
from dtscodec.report.module_grid import ModuleGrid, TensorGroup, by_module, module_grid
from dtscodec.report.spectrum_plot import DEPTH_STEPS, spectra
from dtscodec.report.statistics import CODE_PARTS, PackStatistics, TensorStatistics

KIND_TEXTS = {
    "lowrank": "low-rank differences",
    "values": "one code for each element",
    "raw": "exact bytes",
    "mixed": "tensors of several kinds",
    "same": "as in the base",
    "tie": "tied to another tensor",
    "files": "files that travel",
    "bitmaps": "which rows and columns are coded",
    "overhead": "index, digests, padding",
}
_PARTS = {bits: f"{bits}-bit codes" for bits in CODE_PARTS} | {
    "numbers": "scales, levels, norms",
    "exact": "exact bytes",
}
_SHORT = 240
"""Width of the bars within tables."""

MAX_MODULES = 60
MAX_REASONS = 100


def section(title: str, note: str, *content: str) -> Markup:
    """A part of the page under a heading."""
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
    """Return identity and summary of the pack."""
    base = pack.base
    place = " at ".join(part for part in (base.repo, base.revision) if part) if base else ""
    entries = {
        "pack id": pack.id,
        "base": f"{place} {base.digest}".strip() if base else "none needed",
        "encoder": pack.encoder or "-",
        "file": pack.name,
    }
    return element("dl", *(join([element("dt", name), element("dd", value)]) for name, value in entries.items()))


def kinds(pack: PackStatistics) -> Markup:
    """Where the bytes of the file go."""
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
    return section("Where the bytes go", "Every byte of the file.", picture, table("Bytes by kind", head, rows + whole))


def widths(pack: PackStatistics) -> Markup:
    """Bits by module: a stacked bar for each, and one for all small ones."""
    groups = {name: group for name, group in by_module(pack.tensors).items() if group.size}
    ordered = sorted(groups.items(), key=lambda item: -item[1].size)
    chosen = {name: group for name, group in ordered[:MAX_MODULES] if group.size >= pack.size / 100}
    small = [group for name, group in ordered if name not in chosen]
    if len(small) > 1:
        joined = tuple(tensor for group in small for tensor in group.tensors)
        chosen[f"{len(small):,} smaller modules"] = TensorGroup(joined)
    else:
        chosen = dict(ordered)
    largest = max((group.size for group in chosen.values()), default=0)
    compared = pack.closeness is not None
    rows = [_module_row(name, group, largest, compared) for name, group in chosen.items()]
    head = ["module", "bytes by width", "bytes", "bits/param", "mean rank", *(["error"] if compared else [])]
    totals = TensorGroup(pack.tensors).parts
    entries = [(part, f"{_PARTS[part]}: {size(count)}") for part, count in totals.items() if count]
    note = "All layers together; what takes no bytes is not listed."
    return section("Bits by module", note, legend(entries), table("Bytes by module", head, rows, left=2))


def _module_row(name: str, group: TensorGroup, largest: int, compared: bool) -> list[str]:
    picture = bar(group.parts, largest, _SHORT)
    row = [name, picture, f"{group.size:,}", f"{group.bits:.3f}", number(group.rank, 1)]
    return [*row, number(group.error)] if compared else row


def quantities(places: ModuleGrid, with_error: bool) -> list[Quantity]:
    """Return the measures of heat maps, each with a scale of its own."""
    # What is outside of layers (a new head, say) may be far beyond all layers, and would make them look alike.
    groups = [group for row in places.layers.values() for group in row.values()] or [*places.others.values()]
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
    """Heat maps over depth and module."""
    places = module_grid(pack.tensors)
    note = "Depth from left to right, matrices only. Below, what is outside of layers."
    hidden = sum(max(0, len(rows) - MAX_HEAT_MAP_ROWS) for rows in (places.layers, places.others))
    note += f" {hidden} more modules are in the table of all tensors only." if hidden else ""
    if not places.layers and not places.others:
        return section("Layer by layer", "The pack has no matrices.")
    picture = heat_maps(places, quantities(places, pack.closeness is not None))
    return section("Layer by layer", note, element("div", picture, class_="wide"))


def spectrum(pack: PackStatistics) -> Markup:
    """Spectra with the cut."""
    picture = spectra(pack.tensors)
    if picture is None:
        return section("Spectra", "Nothing is stored with low rank.")
    note = (
        "Norms of the components as they are decoded, strongest first: the singular values that the pack holds. "
        "A line for each layer; a dot is the cut."
    )
    if pack.closeness is not None:
        note += " What is left out is given as a share of the difference's energy, its squared norm."
    colours = [element("i", Markup(""), class_=f"d{step} line") for step in range(DEPTH_STEPS)]
    scale = element("p", element("span", "first layer "), *colours, element("span", " last layer"), class_="legend")
    return section("Spectra", note, scale, element("div", picture, class_="wide"))


def reasons(pack: PackStatistics) -> Markup:
    """Return the tensors that are not stored as a delta, and why."""
    entries = [tensor for tensor in pack.tensors if tensor.reason]
    if not entries:
        return section("Exact or new", "Nothing: every tensor is stored as a difference from the base, or equals it.")
    rows = [[t.name, t.reason or "", _shape(t), t.dtype, f"{t.size:,}"] for t in entries[:MAX_REASONS]]
    hidden = len(entries) - len(rows)
    note = "What is not a difference from the base, and why." + (f" {hidden} more are listed below." if hidden else "")
    head = ["tensor", "why", "shape", "dtype", "bytes"]
    return section("Exact or new", note, table("Tensors that are no differences", head, rows, left=2))


def files(pack: PackStatistics) -> Markup:
    """Files that travel, and tensors that only the base has."""
    rows = [
        [file.name, "as beside the base" if file.stored is None else "in the pack", _amount(file.size),
         _amount(file.stored)]
        for file in pack.files
    ]  # fmt: skip
    gone = f" Only in the base, so not decoded: {listed(pack.absent, 20)}." if pack.absent else ""
    if not rows:
        return section("Files", f"No files travel.{gone}")
    head = ["file", "where", "bytes", "stored"]
    return section("Files", f"What comes back beside the weights.{gone}", table("Files", head, rows, left=2))


def tensors(pack: PackStatistics) -> Markup:
    """Every tensor, folded away on screen."""
    head = ["tensor", "kind", "dtype", "shape", "rank", "width", "bytes", "bits/param"]
    head += ["error"] if pack.closeness else []
    rows = [_row(tensor, pack.closeness is not None) for tensor in pack.tensors]
    summary = element("summary", f"All {len(rows):,} tensors")
    return element("section", element("details", summary, table("All tensors", head, rows, left=3)))


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
    """A number of parameters, short.

    >>> _count(22_713_986), _count(6_700_000_000), _count(80)
    ('22.7 M', '6.7 B', '80')
    """
    for scale, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if parameters >= scale:
            return f"{parameters / scale:.1f} {unit}"
    return str(parameters)
