"""The report page of a pack or of a directory: one HTML file without scripts, which fetches nothing."""

from functools import cache
from importlib.resources import files

from dtscodec.messages import number, percent, size
from dtscodec.report import sections
from dtscodec.report.heat_map import heat_maps
from dtscodec.report.markup import Markup, bar, element, join, legend, table_element, text
from dtscodec.report.module_grid import TensorGroup, module_grid
from dtscodec.report.sections import KIND_TEXTS, quantities, section
from dtscodec.report.statistics import DirectoryStatistics, PackStatistics
from dtscodec.version import __version__

MAX_PICTURED = 50
"""Most packs of a directory that have pictures of their own; the table has all."""

_TEMPLATE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def page(statistics: PackStatistics | DirectoryStatistics) -> str:
    """Return the page of a pack, or of a directory of packs. Equal statistics give equal text.

    Parameters
    ----------
    statistics : PackStatistics or DirectoryStatistics
        The statistics to show.
    """
    if isinstance(statistics, DirectoryStatistics):
        title, parts = statistics.name, _directory_sections(statistics)
    else:
        title, parts = statistics.title, _pack_sections(statistics)
    footer = element("footer", f"Made by dtscodec {__version__}. This page runs no script and needs no network.")
    body = join(Markup(part + "\n") for part in [*parts, footer])
    return _TEMPLATE.format(title=text(f"{title} - dtscodec"), style=style_sheet(), body=body)


def _pack_sections(pack: PackStatistics) -> list[Markup]:
    return [
        element("header", element("p", "dtscodec pack", class_="over"), element("h1", pack.title)),
        sections.figures(pack),
        sections.identity(pack),
        sections.kinds(pack),
        sections.widths(pack),
        sections.layers(pack),
        sections.spectrum(pack),
        sections.reasons(pack),
        sections.files(pack),
        sections.tensors(pack),
    ]


@cache
def style_sheet() -> str:
    """Return the style sheet, which is part of each page."""
    return files("dtscodec.report").joinpath("page.css").read_text("utf-8")


def _directory_sections(directory: DirectoryStatistics) -> list[Markup]:
    """Return all parts of a directory's page but its footer."""
    packs = list(directory.packs.items())
    pictured = [_pack(number, task, pack) for number, (task, pack) in enumerate(packs[:MAX_PICTURED], 1)]
    total, whole = (sum(getattr(pack, kind) for _, pack in packs) for kind in ("size", "fine_tune_size"))
    summary = f"{len(packs):,} packs, {size(total)} of {size(whole)} ({percent(total, whole)})"
    over = element("p", "dtscodec packs", class_="over")
    return [element("header", over, element("h1", directory.name), element("p", summary)), _overview(packs), *pictured]


def _overview(packs: list[tuple[str, PackStatistics]]) -> Markup:
    # The bars of all packs have one scale.
    largest = max((pack.size for _, pack in packs), default=0)
    rows = [
        [
            element("a", task, href=f"#pack-{position}") if position <= MAX_PICTURED else task,
            bar(_kinds(pack), largest, 200),
            f"{pack.size:,}",
            percent(pack.size, pack.fine_tune_size),
            f"{pack.bits:.3f}",
            number(TensorGroup(pack.tensors).rank, 1),
            f"{len(pack.tensors):,}",
        ]
        for position, (task, pack) in enumerate(packs, 1)
    ]
    present = {kind for _, pack in packs for kind, count in _kinds(pack).items() if count}
    colours = legend([(kind, described) for kind, described in KIND_TEXTS.items() if kind in present])
    head = ["task", "bytes by kind", "bytes", "share", "bits/param", "mean rank", "tensors"]
    note = "Share is of the fine-tune's own size."
    if len(packs) > MAX_PICTURED:
        note += f" The first {MAX_PICTURED} have pictures below; `dtscodec report` on a pack makes its own page."
    return section("All packs", note, colours, table_element("All packs", head, rows, left=2))


def _kinds(pack: PackStatistics) -> dict[str, int]:
    return {kind.kind: kind.size for kind in pack.kinds}


def _pack(position: int, task: str, pack: PackStatistics) -> Markup:
    grid = module_grid(pack.tensors)
    summary = f"{size(pack.size)}, {pack.bits:.3f} bits a parameter, id {pack.id[:16]}"
    parts = [element("h2", task), element("p", summary, class_="note")]
    if grid.layers or grid.others:
        parts.append(element("div", heat_maps(grid, quantities(grid, False)), class_="wide"))
    return element("section", *parts, id=f"pack-{position}")
