"""A Hub that does not answer: what is in the cache does, what is not is told in time, and silence is forgotten."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import close_session, constants, get_session

from dtscodec.storage import hub_client, hub_tree
from dtscodec.storage import hub_path as parse_hub_path
from tests.cli.helpers import CODED, Cli, flipped, snapshot
from tests.fakes.hub.server import LoopbackHub
from tests.hub.helpers import run_python, uploads_large_files
from tests.support import ROOT

pytestmark = uploads_large_files

_INFO = ("info", "hf://me/packs/movie"), 'dtscodec.open("hf://me/packs/movie")'
_PUSH = ("push", "more", "me/packs"), 'dtscodec.push("more", "me/packs")'
SLOW = [("/tree/", *_INFO), *((where, *_PUSH) for where in ("/tree/", "/paths-info/", "/preupload/", "/commit/"))]
"""What is slow, and a command and a call that need it."""
Silence = Callable[[], None]


@pytest.fixture(params=["refused", "503", "slow"])
def silence(pushed: LoopbackHub, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Silence:
    """Lets the Hub fall silent."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    def begin() -> None:
        hub_tree.clear_listings()
        if request.param == "refused":
            monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        elif request.param == "503":
            pushed.fail("", status=503, times=1000)
        else:
            monkeypatch.setattr(hub_client, "WAIT_SECONDS", 0.1)
            pushed.fail("", wait=30, times=1000)

    return begin


def speak(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the Hub answer again."""
    hub._faults.clear()
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)


def cached(repo: str, name: str) -> Path:
    """A file in the client's cache."""
    (found,) = Path(constants.HF_HUB_CACHE).glob(f"models--{repo.replace('/', '--')}/snapshots/*/{name}")
    return found.resolve()


def test_what_is_in_the_cache_does(cli: Cli, pushed: LoopbackHub, silence: Silence) -> None:
    commit = pushed.history("me/packs")[0].sha
    cli("decode", "hf://me/packs/movie", "-o", "online")
    silence()
    for number, name in enumerate(("me/packs", f"me/packs@{commit}")):
        cli("decode", f"hf://{name}/movie", "-o", f"silent-{number}")
        assert snapshot(Path(f"silent-{number}")) == snapshot(Path("online"))
    cli.run("encode", "hf://me/base", "tweets", "-o", "pack", *CODED)
    assert Path("pack").exists()


def test_a_file_that_is_not_cached_is_an_error(cli: Cli, pushed: LoopbackHub, silence: Silence) -> None:
    commit = pushed.history("me/packs")[0].sha
    silence()
    for name in ("me/packs", f"me/packs@{commit}"):
        line = cli.fails("decode", f"hf://{name}/movie", "-o", "out")
        assert line.startswith(f"hf://{name}/movie: expected to read it, got ")
        assert "try again" in line
        assert "HF_HUB_OFFLINE" not in line  # It is not set.


def test_a_silent_hub_never_passes_a_damaged_cache(cli: Cli, pushed: LoopbackHub, silence: Silence) -> None:
    cli("decode", "hf://me/packs/movie", "-o", "online")
    silence()
    with flipped(cached("me/packs", "packs/movie.safetensors"), -100):
        cli.fails("decode", "hf://me/packs/movie", "-o", "out")
    with flipped(cached("me/base", "model.safetensors"), -100):
        cli.fails("decode", "hf://me/packs/movie", "-o", "out")


def test_small_files_are_not_left_out_because_of_silence(cli: Cli, pushed: LoopbackHub, silence: Silence) -> None:
    """Of a fine-tune's files the cache may have only some."""
    pushed.create("me/movie")
    pushed.commit("me/movie", {path.name: path.read_bytes() for path in Path("movie").iterdir()})
    cli.run("encode", "hf://me/base", "hf://me/movie", "-o", "online", "--no-files", *CODED)
    silence()
    cli.fails("encode", "hf://me/base", "hf://me/movie", "-o", "pack", *CODED)


def test_silence_is_not_remembered(
    cli: Cli, pushed: LoopbackHub, silence: Silence, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("decode", "hf://me/packs/movie", "-o", "online")
    silence()
    cli("decode", "hf://me/packs/movie", "-o", "silent")
    speak(pushed, monkeypatch)
    monkeypatch.setattr(hub_client, "WAIT_SECONDS", 30.0)
    moved = pushed.commit("me/packs", {"packs/movie.safetensors": pushed.files("me/packs")["packs/tweets.safetensors"]})
    assert cli.json("info", "hf://me/packs/movie")["task"] == "tweets"
    assert str(parse_hub_path.parse_hub_path("hf://me/packs")) == f"hf://me/packs@{moved}"


def test_a_branch_is_asked_for_once_and_a_commit_in_the_cache_not_at_all(cli: Cli, pushed: LoopbackHub) -> None:
    cli("info", "hf://me/packs@main/movie")
    assert [log.path for log in pushed.requests if "/revision/" in log.path] == ["/api/models/me/packs/revision/main"]
    commit = pushed.history("me/packs")[0].sha
    cli("decode", f"hf://me/packs@{commit}/movie", "-o", "out")
    pushed.requests.clear()
    hub_tree.clear_listings()
    cli("info", f"hf://me/packs@{commit}/packs/movie.safetensors")
    assert pushed.requests == []


def test_what_one_token_was_told_is_not_told_another(
    cli: Cli, pushed: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed.repositories["me/packs"].private = True
    cli("info", "hf://me/packs/movie")
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert "hf auth login" in cli.fails("info", "hf://me/packs/movie")


@pytest.mark.parametrize(("where", "command", "call"), SLOW)
def test_a_slow_hub_is_told_in_time(
    cli: Cli, pushed: LoopbackHub, monkeypatch: pytest.MonkeyPatch, where: str, command: tuple[str, ...], call: str
) -> None:
    cli("encode", "hf://me/base", "more=movie", "-o", "more")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(hub_client, "WAIT_SECONDS", 0.1)
    close_session()
    hub_tree.clear_listings()
    pushed.fail(where, wait=60, times=1000)
    start = time.monotonic()
    line = cli.fails(*command)
    assert line.startswith("hf://me/packs")
    assert "try again" in line
    assert time.monotonic() - start < 15


def test_a_commands_client_has_a_timeout_even_when_it_is_made_anew(cli: Cli, pushed: LoopbackHub) -> None:
    cli("info", "hf://me/packs/movie")
    close_session()  # As the client does when a connection fails.
    assert get_session().timeout.read == hub_client.WAIT_SECONDS


PROGRAM = """
import time
import dtscodec
from dtscodec.storage import hub_client
from huggingface_hub import get_session

time.sleep = lambda seconds: None
hub_client.WAIT_SECONDS = 0.1
session = get_session()
start = time.monotonic()
try:
    {call}
except dtscodec.DtsError as error:
    print(error)
assert time.monotonic() - start < 15
assert get_session() is session and session.timeout.read is None
"""


@pytest.mark.parametrize(("where", "command", "call"), SLOW)
def test_the_library_waits_no_longer_and_leaves_the_programs_client_as_it_is(
    cli: Cli, pushed: LoopbackHub, hub_environment: dict[str, str], where: str, command: tuple[str, ...], call: str
) -> None:
    cli("encode", "hf://me/base", "more=movie", "-o", "more")
    pushed.fail(where, wait=60, times=1000)
    line = run_python(PROGRAM.format(call=call), {**hub_environment, "PYTHONPATH": str(ROOT)})
    assert "\n" not in line
    assert line.startswith("hf://me/packs")
    assert "try again" in line
