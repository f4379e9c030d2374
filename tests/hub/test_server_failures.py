"""What the real client makes of a Hub that fails: what it tries again, and what it raises when it gives up."""

import time
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from tests.fakes.hub.server import LoopbackHub
from tests.hub.helpers import LARGE, SMALL, uploads_large_files

pytestmark = uploads_large_files

EVER = 1000
"""Times to fail, more than anybody tries."""


@pytest.fixture
def sha(hub: LoopbackHub) -> str:
    hub.create("me/x")
    return hub.commit("me/x", {"config.json": SMALL, "model.safetensors": LARGE})


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the client wanted to wait between its tries; it does not. The server waits in another way."""
    asked: list[float] = []
    monkeypatch.setattr(time, "sleep", asked.append)
    return asked


def download(hub: LoopbackHub, path: str) -> bytes:
    return Path(hf_hub_download("me/x", path, endpoint=hub.endpoint)).read_bytes()


def upload(api: HfApi, path: str, data: bytes) -> None:
    api.create_commit("me/x", [CommitOperationAdd(path, data)], commit_message="upload")


def left_over() -> list[Path]:
    """What a failed download left of a file in the cache."""
    return list(Path(constants.HF_HUB_CACHE).rglob("*.incomplete"))


def test_a_download_that_breaks_off_once_is_gone_on_with(hub: LoopbackHub, sha: str, waited: list[float]) -> None:
    hub.fail("GET /cdn/.*model.safetensors", cut=1000)
    assert download(hub, "model.safetensors") == LARGE
    assert [logged.sent for logged in hub.requests if logged.method == "GET"] == [1000, len(LARGE)]


def test_a_download_that_always_breaks_off_leaves_nothing(hub: LoopbackHub, sha: str, waited: list[float]) -> None:
    hub.fail("GET /cdn/", EVER, cut=1000)
    with pytest.raises(httpx2.RemoteProtocolError):
        download(hub, "model.safetensors")
    assert (waited, left_over()) == ([1] * 5, [])


def test_a_server_error_on_asking_is_tried_again(hub: LoopbackHub, sha: str) -> None:
    hub.fail("HEAD ", status=500)
    assert download(hub, "config.json") == SMALL


def test_a_server_error_in_the_middle_ends_a_download(hub: LoopbackHub, sha: str) -> None:
    hub.fail("GET /cdn/", status=500)
    with pytest.raises(HfHubHTTPError) as caught:
        snapshot_download("me/x", endpoint=hub.endpoint)
    assert (caught.value.response.status_code, left_over()) == (500, [])


def test_a_server_that_only_fails_is_taken_for_one_out_of_reach(
    hub: LoopbackHub, sha: str, waited: list[float]
) -> None:
    hub.fail("", EVER, status=503)
    with pytest.raises(LocalEntryNotFoundError) as caught:
        download(hub, "config.json")
    assert isinstance(caught.value.__cause__, HfHubHTTPError)
    assert waited == [1, 2, 4, 8, 8]


def test_requests_about_a_repository_are_tried_once(hub: LoopbackHub, api: HfApi, sha: str) -> None:
    hub.fail("GET /api/models/me/x", status=500)
    with pytest.raises(HfHubHTTPError):
        api.model_info("me/x")
    assert api.model_info("me/x").sha == sha


def test_a_tree_is_asked_for_again(hub: LoopbackHub, api: HfApi, sha: str, waited: list[float]) -> None:
    hub.fail("/tree/", close=True)
    hub.fail("/tree/", status=429)
    assert len(list(api.list_repo_tree("me/x"))) == 3
    assert waited == [1, 2]


def test_a_slow_server_is_waited_for_only_so_long(hub: LoopbackHub, api: HfApi, sha: str) -> None:
    hub.fail("GET /api/models/me/x", wait=30)
    with pytest.raises(httpx2.ReadTimeout):
        api.model_info("me/x", timeout=0.1)


@pytest.mark.parametrize("cut", [None, 1000], ids=["before it begins", "in the middle"])
def test_a_download_that_stalls_is_tried_again(
    hub: LoopbackHub, sha: str, waited: list[float], monkeypatch: pytest.MonkeyPatch, cut: int | None
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    hub.fail("GET /cdn/", cut=cut, wait=30)
    assert download(hub, "model.safetensors") == LARGE
    assert waited == [1]


def test_a_hub_that_is_gone_is_out_of_reach(hub: LoopbackHub, sha: str, waited: list[float]) -> None:
    with LoopbackHub().running() as gone:
        pass
    with pytest.raises(httpx2.ConnectError):
        HfApi(endpoint=gone.endpoint, token=False).model_info("me/x")
    with pytest.raises(LocalEntryNotFoundError):
        snapshot_download("me/x", endpoint=gone.endpoint)


def test_what_is_in_the_cache_serves_while_the_hub_fails(hub: LoopbackHub, sha: str) -> None:
    download(hub, "config.json")
    hub.fail("", EVER, status=500)
    assert download(hub, "config.json") == SMALL


@pytest.mark.parametrize("part_size", [None, 100_000], ids=["at once", "in parts"])
def test_an_upload_that_fails_once_is_tried_again(
    hub: LoopbackHub, api: HfApi, sha: str, waited: list[float], part_size: int | None
) -> None:
    hub.part_size = part_size
    hub.fail("PUT /cdn/", status=500)
    hub.fail("PUT /cdn/", close=True)
    upload(api, "new.safetensors", LARGE[1:])
    assert hub.files("me/x")["new.safetensors"] == LARGE[1:]
    assert len(hub.history("me/x")) == 3


def test_an_upload_that_always_fails_makes_no_commit(
    hub: LoopbackHub, api: HfApi, sha: str, waited: list[float]
) -> None:
    hub.fail("PUT /cdn/", EVER, status=500)
    with pytest.raises(RuntimeError) as caught:
        upload(api, "new.safetensors", LARGE[1:])
    assert isinstance(caught.value.__cause__, HfHubHTTPError)
    assert hub.history("me/x")[0].sha == sha


def test_an_upload_that_is_not_what_was_announced_is_refused(hub: LoopbackHub, sha: str) -> None:
    other = hub.endpoint.replace("127.0.0.1", "localhost")
    assert httpx2.put(f"{other}/cdn/upload/me/x/{'0' * 64}/4", content=b"four").status_code == 400


def test_a_commit_is_tried_once(hub: LoopbackHub, api: HfApi, sha: str) -> None:
    hub.fail("/commit/", status=500)
    with pytest.raises(HfHubHTTPError):
        upload(api, "new.json", SMALL)
    assert hub.history("me/x")[0].sha == sha


def test_a_commit_whose_answer_is_lost_was_made(hub: LoopbackHub, api: HfApi, sha: str) -> None:
    hub.fail("/commit/", cut=5)
    with pytest.raises(httpx2.RemoteProtocolError):
        upload(api, "new.json", SMALL)
    assert hub.history("me/x")[0].parent == sha
    assert hub.files("me/x")["new.json"] == SMALL


def test_an_error_of_the_server_itself_is_not_hidden() -> None:
    with pytest.raises(KeyError), LoopbackHub().running() as broken:
        httpx2.get(f"{broken.endpoint.replace('127.0.0.1', 'localhost')}/cdn/me/x/{'0' * 64}", timeout=5)
