"""What happens meanwhile: two first pushes lose nothing, one that fails leaves nothing and takes nothing of others."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dtscodec.hub import push as module
from tests.cli.helpers import Cli
from tests.fakes.hub.server import LoopbackHub
from tests.hub.helpers import uploads_large_files

pytestmark = uploads_large_files


@pytest.fixture
def packs(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Packs of one task each, and a client that does not wait between tries."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    for task in ("movie", "tweets"):
        cli("encode", "hf://me/base", task, "-o", f"{task}-packs/")
    return cli


def before(monkeypatch: pytest.MonkeyPatch, name: str, happens: Callable[[], object]) -> None:
    """Let something happen once, just before a step of a push."""
    original, todo = getattr(module, name), [happens]

    def step(*arguments: object) -> object:
        while todo:
            todo.pop()()
        return original(*arguments)

    monkeypatch.setattr(module, name, step)


@pytest.mark.parametrize("step", ["prepared_target", "_commit"])
def test_two_first_pushes_at_once_lose_nothing(
    packs: Cli, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before(monkeypatch, step, lambda: packs("push", "tweets-packs", "me/packs"))
    if step == "_commit":  # Both had seen an empty repository.
        assert "try again" in packs.fails("push", "movie-packs", "me/packs")
        assert json.loads(hub.files("me/packs")["dtscodec.json"])["packs"].keys() == {"tweets"}
    packs("push", "movie-packs", "me/packs")
    assert json.loads(hub.files("me/packs")["dtscodec.json"])["packs"].keys() == {"movie", "tweets"}
    assert b"| `tweets` |" in hub.files("me/packs")["README.md"]


FAULTS = [{"status": 500}, {"status": 403}, {"close": True}]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize("where", ["/commit/", "/preupload/", "PUT ", "/branch/", "paths-info"])
@pytest.mark.parametrize("branch", [[], ["--revision", "try"]], ids=["main", "branch"])
def test_a_first_push_that_fails_leaves_nothing(
    packs: Cli, hub: LoopbackHub, fault: dict[str, int], where: str, branch: list[str]
) -> None:
    hub.fail(f"POST .*me/packs.*{where}" if where != "PUT " else where, times=9, **fault)  # type: ignore[arg-type]
    if where == "/branch/" and not branch:
        return
    packs.fails("push", "movie-packs", "me/packs", *branch)
    assert "me/packs" not in hub.repositories


def test_an_interrupted_first_push_leaves_nothing(
    packs: Cli, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        assert "me/packs" in hub.repositories
        raise KeyboardInterrupt

    before(monkeypatch, "_commit", interrupt)
    packs.run("push", "movie-packs", "me/packs")
    assert "me/packs" not in hub.repositories


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_branch_is_taken_back_and_nothing_else(packs: Cli, hub: LoopbackHub, fault: dict[str, int]) -> None:
    packs("push", "movie-packs", "me/packs")
    history = hub.history("me/packs")
    hub.fail("POST .*/commit/", times=9, **fault)  # type: ignore[arg-type]
    packs.fails("push", "tweets-packs", "me/packs", "--revision", "try")
    assert hub.repositories["me/packs"].branches == {"main": history[0].sha}


@pytest.mark.parametrize("branch", ["main", "try"])
def test_what_came_into_a_new_repository_meanwhile_stays(
    packs: Cli, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, branch: str
) -> None:
    before(monkeypatch, "_commit", lambda: hub.commit("me/packs", {"notes.txt": b"another's"}, branch=branch))
    hub.fail("POST .*/commit/", status=500, times=9)
    packs.fails("push", "movie-packs", "me/packs")
    assert hub.files("me/packs", branch)["notes.txt"] == b"another's"


def test_what_came_into_a_new_branch_meanwhile_stays(
    packs: Cli, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    packs("push", "movie-packs", "me/packs")
    before(monkeypatch, "_commit", lambda: hub.commit("me/packs", {"notes.txt": b"another's"}, branch="try"))
    packs.fails("push", "tweets-packs", "me/packs", "--revision", "try")
    assert hub.files("me/packs", "try")["notes.txt"] == b"another's"


@pytest.mark.parametrize("branch", [None, "try"])
def test_what_somebody_else_made_meanwhile_is_not_taken_back(
    packs: Cli, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, branch: str | None
) -> None:
    if branch:
        packs("push", "movie-packs", "me/packs")

    def make() -> None:
        if branch:
            hub.repositories["me/packs"].branches[branch] = hub.history("me/packs")[0].sha
        else:
            hub.create("me/packs")

    before(monkeypatch, "prepared_target", make)
    hub.fail("POST .*/commit/", status=500, times=9)
    packs.fails("push", "tweets-packs", "me/packs", *(["--revision", branch] if branch else []))
    assert (branch or "main") in hub.repositories["me/packs"].branches


def test_a_commit_whose_answer_was_lost_stays(packs: Cli, hub: LoopbackHub) -> None:
    hub.fail("POST .*/commit/", cut=10)
    packs.fails("push", "movie-packs", "me/packs")
    assert "packs/movie.safetensors" in hub.files("me/packs")
    assert "everything is up to date" in packs("push", "movie-packs", "me/packs")


def test_what_cannot_be_taken_back_does_not_hide_the_failure(packs: Cli, hub: LoopbackHub) -> None:
    hub.fail("POST .*/commit/", status=500, times=9)
    hub.fail("DELETE ", status=403, times=9)
    assert "status 500" in packs.fails("push", "movie-packs", "me/packs")


def test_a_branch_is_made_though_nothing_else_is_new(packs: Cli, hub: LoopbackHub) -> None:
    packs("push", "movie-packs", "me/packs")
    head = hub.history("me/packs")[0].sha
    again = ("push", "movie-packs", "me/packs", "--revision", "try")
    assert packs(*again, "--dry-run").endswith("branch try would be created from the main one\n")
    assert hub.repositories["me/packs"].branches == {"main": head}
    assert packs(*again).endswith("branch try was created from the main one\n")
    assert hub.repositories["me/packs"].branches == {"main": head, "try": head}
    assert packs(*again).endswith("everything is up to date\n")


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("step", ["prepared_target", "_commit"])
@pytest.mark.parametrize("other", ["tweets-packs/packs/tweets.safetensors", None])
def test_a_pack_that_is_replaced_after_its_check_is_not_pushed(
    packs: Cli, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, step: str, other: str | None, is_first: bool
) -> None:
    if not is_first:
        packs("push", "tweets-packs", "me/packs")
    history = [] if is_first else hub.history("me/packs")
    path = Path("movie-packs/packs/movie.safetensors")

    def replace() -> None:
        path.unlink() if other is None else path.write_bytes(Path(other).read_bytes())

    before(monkeypatch, step, replace)
    code, _, line = packs.run("push", "movie-packs", "me/packs")
    assert code == 1
    assert line.startswith(f"dtscodec: {path}: expected ")
    assert line.count("\n") == 1
    assert (hub.history("me/packs") if "me/packs" in hub.repositories else []) == history
