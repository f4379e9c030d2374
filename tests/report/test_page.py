"""The page: all of it is there, nothing of a pack becomes markup, and the same pack gives the same bytes."""

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dtscodec.report.pack_statistics import directory_statistics, pack_statistics
from dtscodec.report.page import page, style_sheet
from dtscodec.report.statistics import PARTS, PackStatistics, TensorStatistics
from tests.report.conftest import HOSTILE, LAYERS, Tensors

TAGS = {"html", "head", "meta", "link", "title", "style", "body", "main", "header", "section", "footer"}
TAGS |= {"div", "p", "h1", "h2", "b", "i", "span", "a", "dl", "dt", "dd", "details", "summary"}
TAGS |= {"table", "caption", "thead", "tbody", "tr", "th", "td"}
TAGS |= {"svg", "g", "rect", "text", "line", "polyline", "circle"}


class Reader(HTMLParser):
    """What a browser makes of a page, roughly: elements, their attributes, and text."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.words: list[str] = []
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def synthetic(count: int) -> PackStatistics:
    """Facts of a model with so many matrices, without a pack."""
    tensors = tuple(
        TensorStatistics(
            name=f"model.layers.{i // 40}.mlp.experts.number{i % 40}.projection.weight",
            dtype="BF16",
            shape=(1024, 512),
            kind="lowrank",
            depth=i // 40,
            module=f"mlp.experts.number{i % 40}.projection",
            elements=1024 * 512,
            size=9000,
            ranks=(16,),
            parts={"2": 8000, "numbers": 1000},
            spectra=(tuple(1 / (k + 1) for k in range(64)),),
            reason="exact: new, not in the base" if i % 2 else None,
            exact=False,
            delta_square=1.0,
            error_square=0.3,
        )
        for i in range(count)
    )
    return PackStatistics("big", "0" * 64, "big", None, None, 9000 * count, 1, 1, (), (), (), tensors)


@pytest.mark.parametrize("compared", [False, True])
def test_hostile_names_stay_text(pack: Path, fine: Tensors, base: Tensors, compared: bool) -> None:
    facts = pack_statistics(pack, fine, base) if compared else pack_statistics(pack)
    facts = replace(facts, task=HOSTILE[0], name=HOSTILE[1], encoder=HOSTILE[2], absent=tuple(HOSTILE))
    reader = Reader(page(facts))
    assert set(reader.tags) <= TAGS
    assert not {name for name in reader.attributes if name.startswith("on") or name in ("src", "style")}
    assert reader.tags.count("style") == 1
    assert all(any(name in word for word in reader.words) for name in (HOSTILE[0], HOSTILE[1], HOSTILE[4]))
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", page(facts))


def test_a_name_out_of_half_a_character_can_be_written(pack: Path) -> None:
    assert r"\ud800" in page(replace(pack_statistics(pack), task="\ud800")).encode("utf-8").decode()


def test_the_page_fetches_nothing_and_runs_no_script(pack: Path) -> None:
    markup = page(pack_statistics(pack))
    assert "<script" not in markup
    assert "default-src 'none'" in markup
    assert not re.search(r"https?:|url\(|@import", markup)


def test_the_same_pack_gives_the_same_bytes(pack: Path) -> None:
    code = (
        "import sys; from dtscodec.report.pack_statistics import pack_statistics; "
        "from dtscodec.report.page import page; "
        "sys.stdout.buffer.write(page(pack_statistics(sys.argv[1])).encode())"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code, str(pack)], env=os.environ | {"PYTHONHASHSEED": seed}, stdout=subprocess.PIPE
        ).stdout
        for seed in ("1", "2")
    }
    assert runs == {page(pack_statistics(pack)).encode()}


def test_every_tensor_is_in_the_table_and_every_matrix_on_the_map(pack: Path, fine: Tensors, base: Tensors) -> None:
    facts = pack_statistics(pack, fine, base)
    markup = page(facts)
    table = markup[markup.index("<details>") :]
    assert table.count("<tr>") == len(facts.tensors) + 1
    for layer in range(LAYERS):
        name = f"layer.{layer}.attention.query.weight"
        assert len(re.findall(rf"<title>{re.escape(name)}: [\d.]+</title>", markup)) == 3
        assert f'<th scope="row">{name}</th>' in table


def test_five_thousand_tensors_make_a_small_page_quickly() -> None:
    start = time.perf_counter()
    markup = page(synthetic(5000))
    assert time.perf_counter() - start < 15
    assert len(markup.encode()) < 5_000_000


@pytest.mark.parametrize("shape", [(), (7,), (0, 3), (3, 2, 2)])
def test_a_pack_of_one_tensor_of_any_shape_has_a_page(shape: tuple[int, ...]) -> None:
    facts = synthetic(1)
    tensor = replace(facts.tensors[0], shape=shape, depth=None, ranks=(), spectra=(), parts={}, size=0, elements=0)
    assert "No tensor is stored with low rank." in page(replace(facts, tensors=(tensor,)))


def test_a_pack_without_tensors_has_a_page() -> None:
    assert "The pack has no matrices." in page(synthetic(0))


def test_components_that_decode_to_nothing_are_left_out_of_the_picture() -> None:
    facts = synthetic(2)
    nothing = replace(facts.tensors[0], spectra=((0.0, 0.0),))
    assert page(replace(facts, tensors=(nothing, facts.tensors[1]))).count("<polyline") == 1


def test_the_page_of_a_directory_has_all_packs(folder: Path) -> None:
    markup = page(directory_statistics(folder))
    assert '<a href="#pack-1">&lt;tweets&gt;</a>' in markup
    assert markup.count('id="pack-') == 2
    assert set(Reader(markup).tags) <= TAGS


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_figures_have_contrast(scheme: str) -> None:
    light, dark = style_sheet().split("@media (prefers-color-scheme: dark)")
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", light if scheme == "light" else dark))
    for name in ("ink", "soft", "link"):
        assert contrast(colours[name], colours["page"]) >= 4.5, name
    for step in range(9):
        assert contrast(colours[f"h{step}"], colours["low" if step < 5 else "high"]) >= 4.5, step
    for name in ("lowrank", "values", "raw", "mixed", "files", "bitmaps", "overhead", *(f"d{i}" for i in range(7))):
        assert contrast(colours[name], colours["page"]) >= 3, name


def contrast(one: str, other: str) -> float:
    """As WCAG has it."""
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_every_part_and_kind_has_a_colour() -> None:
    kinds = ("lowrank", "values", "raw", "mixed", "same", "tie", "files", "bitmaps", "overhead")
    assert all(re.search(rf"\.k{name}\b", style_sheet()) for name in (*PARTS, *kinds))
