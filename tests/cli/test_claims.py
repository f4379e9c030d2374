"""Claims of packs: shown as the author's in info, report and on the Hub's page, dropped where codes change."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dtscodec
from dtscodec.hub.model_card import model_card_text
from dtscodec.hub.repository import local_packs, updated_index
from tests.cli.helpers import PACK, Cli, write_changed
from tests.evaluation.helpers import make, write_texts

CLAIM = {
    "measure": "kl",
    "bound": 10_000_000,
    "figure": 8_120_000,
    "limit": 9_500_000,
    "confidence": 950_000_000,
    "samples": 128,
    "predictions": 15_872,
    "digest": "ab" * 32,
}
AGREEMENT = CLAIM | {"measure": "agreement", "bound": 970_000_000, "figure": 981_000_000, "limit": 975_000_000}
FACTS = CLAIM | {"bound": 0.01, "figure": 0.00812, "limit": 0.0095, "confidence": 0.95}


def write_claiming(path: str, pack: str | Path, claim: object) -> None:
    """Write a pack with a claim, whatever it says."""
    write_changed(path, Path(pack).read_bytes(), lambda summary: summary.update(claim=claim))


def page_of(path: str) -> str:
    return model_card_text("me/packs", updated_index(None, local_packs(Path(path), {}), "hf://me/base")).decode()


def test_info_and_report_say_that_a_claim_is_the_authors(cli: Cli) -> None:
    write_claiming("claimed", PACK, CLAIM)
    words = "KL 0.00812, with 95 % confidence at most 0.0095; promised 0.01; 128 samples, 15,872 predictions"
    assert f"\nclaim       {words} (the author's claim)\n" in cli("info", "claimed")
    assert cli.json("info", "claimed")["claim"] == cli.json("report", "claimed")["claim"] == FACTS
    cli("report", "claimed", "-o", "out.html")
    assert f"<dt>author&#x27;s claim</dt><dd>{words}</dd>" in Path("out.html").read_text().replace("&#39;", "&#x27;")


def test_a_pack_without_a_claim_says_nothing_of_one(cli: Cli) -> None:
    assert "claim" not in cli("info", PACK)
    assert cli.json("info", PACK)["claim"] is None
    assert "claim" not in page_of(PACK)


def test_the_page_of_a_repository_shows_claims_beside_other_figures(cli: Cli) -> None:
    for name, claim in (("movie", CLAIM), ("tweets", AGREEMENT)):
        write_claiming(name + ".dts.safetensors", PACK, claim)
    packs = [*local_packs(Path("movie.dts.safetensors"), {"movie": {"kl": 0.2}})]
    page = model_card_text("me/packs", updated_index(None, packs, "hf://me/base")).decode()
    assert "| task | size | KL | KL, claimed |" in page
    assert "| 0.2 | 0.00812 (95 %: ≤ 0.0095) |" in page
    assert "those of the author" in page
    assert "| 98.1 % (95 %: ≥ 97.5 %) |" in page_of("tweets.dts.safetensors")


def test_a_claim_in_the_index_is_gone_with_the_pack_that_made_it(cli: Cli) -> None:
    write_claiming("claimed", PACK, CLAIM)
    before = updated_index(None, local_packs(Path("claimed"), {}), None)
    after = updated_index(before, local_packs(Path(PACK), {}), None)
    assert [bool(index.packs["movie"].figures) for index in (before, after)] == [True, False]


@pytest.mark.parametrize(
    "change",
    [
        {"figure": 2**53},
        {"bound": 10**30},
        {"figure": "<b>0</b>"},
        {"measure": "<script>"},
        {"digest": "<script>" * 8},
        {"limit": None},
        {"note": "<script>"},
        {"bound": 1},
    ],
    ids=str,
)
def test_a_hostile_claim_is_refused(cli: Cli, change: dict[str, Any]) -> None:
    text = Path(PACK).read_bytes()
    if any(isinstance(value, int) and value >= 2**53 for value in change.values()):
        # Not even canonical JSON: written by hand.
        write_claiming("hostile", PACK, CLAIM)
        old, new = (json.dumps(CLAIM[key]) for key in change), (json.dumps(value) for value in change.values())
        data = Path("hostile").read_bytes().replace(next(old).encode(), next(new).encode())
        Path("hostile").write_bytes(data)
    else:
        write_changed("hostile", text, lambda summary: summary.update(claim=CLAIM | change))
    for command in ("info", "verify"):
        assert "hostile" in cli.fails(command, "hostile")


@pytest.mark.slow
def test_a_fit_drops_the_claim_and_a_push_keeps_it(
    cli: Cli, tmp_path_factory: pytest.TempPathFactory, work: Path
) -> None:
    made = make("bert", tmp_path_factory.mktemp("bert"))
    texts = write_texts(work / "texts.jsonl")
    write_claiming("claimed", made.pack, CLAIM)
    dtscodec.fit("claimed", made.fine, "fitted", made.base, samples=texts, steps=1)
    assert _claims("claimed", "fitted") == [True, False]
    (pack,) = local_packs(Path("claimed"), {})
    assert pack.listed.figures["claimed_kl"] == 0.00812


def test_a_fusion_of_packs_that_claim_something_claims_nothing(cli: Cli) -> None:
    write_claiming("claimed", PACK, CLAIM)
    cli("fuse", "claimed", "claimed", "--weights", "0.5,0.5", "-o", "fused")
    assert _claims("claimed", "fused") == [True, False]


def _claims(*packs: str) -> list[bool]:
    is_claimed: Callable[[str], bool] = lambda path: dtscodec.info(path).claim is not None  # noqa: E731
    return [is_claimed(path) for path in packs]
