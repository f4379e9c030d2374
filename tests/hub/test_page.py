"""The page of a repository: what its owner wrote stays byte by byte, ours is added, and nothing is pushed twice."""

from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from dtscodec.hub.model_card import BEGIN, END
from tests.cli.helpers import Cli
from tests.fakes.hub.reading import card, front_matter
from tests.fakes.hub.server import LoopbackHub
from tests.hub.helpers import uploads_large_files

pytestmark = uploads_large_files

OURS = {
    "library_name": "dtscodec",
    "base_model": "me/base",
    "base_model_relation": "adapter",
    "tags": ["compressed", "delta", "dtscodec"],
}


def pushed_onto(cli: Cli, hub: LoopbackHub, page: str | bytes) -> bytes:
    """What becomes of a page; a second push finds it as it is to be."""
    hub.create("me/packs")
    hub.commit("me/packs", {"README.md": page if isinstance(page, bytes) else page.encode()})
    cli("encode", "hf://me/base", "movie", "-o", "packs/")
    cli("push", "packs", "me/packs")
    assert "everything is up to date" in cli("push", "packs", "me/packs")
    assert len(hub.history("me/packs")) == 3  # That which made it, the page's, and ours.
    return hub.files("me/packs")["README.md"]


def assert_is_kept(before: str, after: str) -> None:
    """All lines of a page are there in their order; others are ours."""
    left = before.removeprefix("\ufeff").splitlines()
    for line in after.removeprefix("\ufeff").splitlines():
        if left and line == left[0]:
            left.pop(0)
    assert not left
    assert before.startswith("\ufeff") == after.startswith("\ufeff")


PAGES = {
    "comments": "---\n# licence\nlicense: mit  # of the base\n\nlanguage:\n- en # mine\n---\n\n# Mine\n\n\nText.\n\n",
    "model-index": "---\nmodel-index:\n- nam: wrong\n  loss: .nan\n---\n# Mine\n",
    "block scalar": "---\nlicense: mit\nsummary: |\n  Of two\n  lines.\n---\n# Mine\n",
    "trailing break": "---\nlicense: mit\n\n---   \n# Mine",
    "blank line first": "\n\n---\nlicense: mit\n---\n# Mine\n",
    "byte order mark": "\ufeff---\nlicense: mit\n---\n# Mine\n",
    "byte order mark alone": "\ufeff# Mine\n",
    "carriage returns": "---\r\nlicense: mit\r\n---\r\n\r\n# Mine\r\n",
    "carriage returns alone": "# Mine\r\n\r\nText.\r\n",
    "only comments": "---\n# nothing yet\n---\n# Mine\n",
    "no metadata": "# Mine\n\nText\n---\nand a heading.",
    "a rule": "---\n\nWelcome to **mine**.\n\n---\n\nMore: of it.\n",
    "a rule and emphasis": "---\n**Welcome**\n\n---\n\nMore.\n",
    "a list between rules": "---\n- one\n- two\n\n---\n",
    "a rule alone": "---\n\nWelcome.\n",
    "rules in the text": "---\nlicense: mit\n---\nText\n\n---\n\nMore.\n\n---\n",
}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_what_the_owner_wrote_stays_and_ours_is_added(cli: Cli, hub: LoopbackHub, page: str) -> None:
    after = pushed_onto(cli, hub, page)
    text = after.decode()
    assert_is_kept(page, text.partition(BEGIN)[0])
    assert text.partition(END)[2] in ("\n", "\r\n")
    assert (b"\r\n" in after) == (after.count(b"\n") == after.count(b"\r\n"))
    assert repr(front_matter(text)) == repr((card(page.encode()) or {}) | OURS)


LISTS = {
    "tags: [2024, nlp]  # mine": [2024, "nlp", *OURS["tags"]],
    "tags: [2024, nlp,]": [2024, "nlp", *OURS["tags"]],
    "tags: []": OURS["tags"],
    "tags:": OURS["tags"],
    "tags: # none yet": OURS["tags"],
    "tags: nlp": ["nlp", *OURS["tags"]],
    "tags:\n- nlp # mine\n- 'two words'\n\n# end": ["nlp", "two words", *OURS["tags"]],
    "tags:\n  - dtscodec\n  - nlp": ["dtscodec", "nlp", "compressed", "delta"],
}


@pytest.mark.parametrize(("line", "tags"), LISTS.items())
def test_tags_are_added_to_the_owners(cli: Cli, hub: LoopbackHub, line: str, tags: list[object]) -> None:
    after = pushed_onto(cli, hub, f"---\n{line}\nlicense: mit\n---\n# Mine\n").decode()
    assert front_matter(after)["tags"] == tags
    assert all(comment in after for comment in ("# mine", "# end", "# none yet") if comment in line)


@pytest.mark.parametrize(
    ("owners", "wanted"),
    [
        ("library_name: transformers", {**OURS, "library_name": "transformers"}),
        ("library_name: ", OURS),
        ("base_model: you/model", {"library_name": "dtscodec", "base_model": "you/model", "tags": OURS["tags"]}),
        (
            "base_model: [you/a, you/b]\nbase_model_relation: merge",
            {**OURS, "base_model": ["you/a", "you/b", "me/base"], "base_model_relation": "merge"},
        ),
        ("base_model:\n  - me/base", {"library_name": "dtscodec", "base_model": ["me/base"], "tags": OURS["tags"]}),
    ],
)
def test_what_the_owner_says_of_library_and_base_stays(
    cli: Cli, hub: LoopbackHub, owners: str, wanted: dict[str, object]
) -> None:
    found = front_matter(pushed_onto(cli, hub, f"---\n{owners}\n---\n# Mine\n").decode())
    assert {**found, "base_model_relation": found.get("base_model_relation")} == {"base_model_relation": None} | wanted


def test_what_a_push_said_of_the_base_another_push_changes(cli: Cli, pushed: LoopbackHub) -> None:
    pushed.create("me/second")
    pushed.commit("me/second", {path.name: path.read_bytes() for path in Path("base").iterdir()})
    cli("encode", "hf://me/second", "movie", "tweets", "amazon", "-o", "second")
    cli("push", "second", "me/packs")
    assert front_matter(pushed.files("me/packs")["README.md"].decode()) == {**OURS, "base_model": "me/second"}


def test_a_model_is_not_its_own_base(cli: Cli, hub: LoopbackHub) -> None:
    cli("encode", "hf://me/base", "movie", "-o", "packs/")
    cli("push", "packs", "me/base")
    assert "base_model" not in front_matter(hub.files("me/base")["README.md"].decode())


NOT_UNDERSTOOD = {
    "no YAML": b"---\nlicense: [mit\n---\n# Mine\n",
    "a date that is none": b"---\nlicense: mit\ndate: 2024-13-45\n---\n# Mine\n",
    "a text in a mapping": b"---\nlicense: mit\nand more\n---\n# Mine\n",
    "all in braces": b"---\n{license: mit}\n---\n# Mine\n",
    "an end of its own": b"---\nlicense: mit\n...\n---\n# Mine\n",
    "an alias": b"---\nmine: &a [x]\ntags: *a\n---\n# Mine\n",
    "Latin-1": b"---\nlicense: mit\n---\n# Na\xefve\n",
    "what the Hub refuses": b"---\nbase_model_relation: none of these\n---\n# Mine\n",
}


@pytest.mark.parametrize("page", NOT_UNDERSTOOD.values(), ids=NOT_UNDERSTOOD)
def test_a_page_that_cannot_be_added_to_is_left_alone(cli: Cli, hub: LoopbackHub, page: bytes) -> None:
    hub.create("me/packs")
    hub.commit("me/packs", {"README.md": page})
    cli("encode", "hf://me/base", "movie", "-o", "packs/")
    before = hub.history("me/packs")
    line = cli.fails("push", "packs", "me/packs")
    assert "README.md" in line
    assert any(way in line for way in ("correct", "yourself", "save it"))
    assert "network" not in line
    assert hub.history("me/packs") == before


def test_a_page_in_braces_is_added_to_by_hand(cli: Cli, hub: LoopbackHub) -> None:
    found = pushed_onto(
        cli, hub, f"---\n{yaml.safe_dump({'license': 'mit'} | OURS, default_flow_style=True)}---\n# Mine\n"
    )
    assert front_matter(found.decode()) == {"license": "mit"} | OURS
