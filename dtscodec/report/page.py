"""The page: one HTML file that needs nothing else, runs no script and fetches nothing."""

from functools import cache
from importlib.resources import files

from dtscodec.messages import number, percent, size
from dtscodec.report import sections
from dtscodec.report.heat_map import heat_maps
from dtscodec.report.markup import Markup, bar, element, join, legend, table, text
from dtscodec.report.module_grid import TensorGroup, module_grid
from dtscodec.report.sections import KIND_TEXTS, quantities, section
from dtscodec.report.statistics import DirectoryStatistics, PackStatistics
from dtscodec.version import __version__

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


def page(facts: PackStatistics | DirectoryStatistics) -> str:
    """The page of a pack, or of a directory of packs. The same facts give the same text."""
    if isinstance(facts, DirectoryStatistics):
        title, parts = facts.name, _directory_sections(facts)
    else:
        title, parts = facts.title, _pack_sections(facts)
    footer = element("footer", f"Made by dtscodec {__version__} from the file alone: no network, no script.")
    body = join(Markup(part + "\n") for part in [*parts, footer])
    return _TEMPLATE.format(title=text(f"{title} - dtscodec"), style=style_sheet(), body=body)


def _pack_sections(facts: PackStatistics) -> list[Markup]:
    return [
        element("header", element("p", "dtscodec pack", class_="over"), element("h1", facts.title)),
        sections.figures(facts),
        sections.identity(facts),
        sections.kinds(facts),
        sections.widths(facts),
        sections.layers(facts),
        sections.spectrum(facts),
        sections.reasons(facts),
        sections.files(facts),
        sections.tensors(facts),
    ]


@cache
def style_sheet() -> str:
    """The style sheet, which goes into each page."""
    return files("dtscodec.report").joinpath("page.css").read_text("utf-8")


MAX_PICTURED = 50
"""Packs that have pictures of their own; the table has all."""


def _directory_sections(facts: DirectoryStatistics) -> list[Markup]:
    """All parts of the page but its footer."""
    packs = list(facts.packs.items())
    pictured = [_pack(number, task, pack) for number, (task, pack) in enumerate(packs[:MAX_PICTURED], 1)]
    total, whole = (sum(getattr(pack, kind) for _, pack in packs) for kind in ("size", "fine_tune_size"))
    summary = f"{len(packs):,} packs, {size(total)} of {size(whole)} ({percent(total, whole)})"
    over = element("p", "dtscodec packs", class_="over")
    return [element("header", over, element("h1", facts.name), element("p", summary)), _overview(packs), *pictured]


def _overview(packs: list[tuple[str, PackStatistics]]) -> Markup:
    largest = max((pack.size for _, pack in packs), default=0)
    rows = [
        [
            element("a", task, href=f"#pack-{place}") if place <= MAX_PICTURED else task,
            bar(_kinds(pack), largest, 200),
            f"{pack.size:,}",
            percent(pack.size, pack.fine_tune_size),
            f"{pack.bits:.3f}",
            number(TensorGroup(pack.tensors).rank, 1),
            f"{len(pack.tensors):,}",
        ]
        for place, (task, pack) in enumerate(packs, 1)
    ]
    present = {kind for _, pack in packs for kind, count in _kinds(pack).items() if count}
    colours = legend([(kind, described) for kind, described in KIND_TEXTS.items() if kind in present])
    head = ["task", "bytes by kind", "bytes", "share", "bits/param", "mean rank", "tensors"]
    note = "Share is of the fine-tune's own size."
    if len(packs) > MAX_PICTURED:
        note += f" The first {MAX_PICTURED} have pictures below; `dtscodec report` on a pack makes its own page."
    return section("All packs", note, colours, table("All packs", head, rows, left=2))


def _kinds(pack: PackStatistics) -> dict[str, int]:
    return {kind.kind: kind.size for kind in pack.kinds}


def _pack(place: int, task: str, pack: PackStatistics) -> Markup:
    places = module_grid(pack.tensors)
    summary = f"{size(pack.size)}, {pack.bits:.3f} bits a parameter, id {pack.id[:16]}"
    parts = [element("h2", task), element("p", summary, class_="note")]
    if places.layers or places.others:
        parts.append(element("div", heat_maps(places, quantities(places, False)), class_="wide"))
    return element("section", *parts, id=f"pack-{place}")
