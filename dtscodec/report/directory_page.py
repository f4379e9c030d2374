"""The page of a directory of packs: one table of all, and a few pictures of each."""

from dtscodec.report.bar_chart import bar, legend
from dtscodec.report.facts import FolderFacts, PackFacts
from dtscodec.report.formatting import number, percent, size
from dtscodec.report.heat_map import heat_maps
from dtscodec.report.markup import Markup, element, table
from dtscodec.report.module_grid import Group, grid
from dtscodec.report.sections import KINDS, measures, section

MAX_PICTURED = 50
"""Packs that have pictures of their own; the table has all."""


def folder_sections(facts: FolderFacts) -> list[Markup]:
    """All parts of the page but its footer."""
    packs = list(facts.packs.items())
    pictured = [_pack(number, task, pack) for number, (task, pack) in enumerate(packs[:MAX_PICTURED], 1)]
    total, whole = (sum(getattr(pack, kind) for _, pack in packs) for kind in ("size", "fine_tune_size"))
    summary = f"{len(packs):,} packs, {size(total)} of {size(whole)} ({percent(total, whole)})"
    over = element("p", "dtscodec packs", class_="over")
    return [element("header", over, element("h1", facts.name), element("p", summary)), _overview(packs), *pictured]


def _overview(packs: list[tuple[str, PackFacts]]) -> Markup:
    largest = max((pack.size for _, pack in packs), default=0)
    rows = [
        [
            element("a", task, href=f"#pack-{place}") if place <= MAX_PICTURED else task,
            bar(_kinds(pack), largest, 200),
            f"{pack.size:,}",
            percent(pack.size, pack.fine_tune_size),
            f"{pack.bits:.3f}",
            number(Group(pack.tensors).rank, 1),
            f"{len(pack.tensors):,}",
        ]
        for place, (task, pack) in enumerate(packs, 1)
    ]
    present = {kind for _, pack in packs for kind, count in _kinds(pack).items() if count}
    colours = legend([(kind, described) for kind, described in KINDS.items() if kind in present])
    head = ["task", "bytes by kind", "bytes", "share", "bits/param", "mean rank", "tensors"]
    note = "Share is of the fine-tune's own size."
    if len(packs) > MAX_PICTURED:
        note += f" The first {MAX_PICTURED} have pictures below; `dtscodec report` on a pack makes its own page."
    return section("All packs", note, colours, table("All packs", head, rows, left=2))


def _kinds(pack: PackFacts) -> dict[str, int]:
    return {kind.kind: kind.size for kind in pack.kinds}


def _pack(place: int, task: str, pack: PackFacts) -> Markup:
    places = grid(pack.tensors)
    summary = f"{size(pack.size)}, {pack.bits:.3f} bits a parameter, id {pack.id[:16]}"
    parts = [element("h2", task), element("p", summary, class_="note")]
    if places.layers or places.others:
        parts.append(element("div", heat_maps(places, measures(places, False)), class_="wide"))
    return element("section", *parts, id=f"pack-{place}")
