"""The real client reads from the loopback Hub."""

from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from tests.fakes.hub.server import LoopbackHub
from tests.hub.helpers import LARGE, SMALL, run_python

FILES = {"config.json": SMALL, "tasks/movie.safetensors": LARGE}


@pytest.fixture
def sha(hub: LoopbackHub) -> str:
    """The commit of a repository with a small and a large file."""
    hub.create("me/x")
    return hub.commit("me/x", FILES)


def downloaded(hub: LoopbackHub, path: str, *, token: str | bool = False, revision: str | None = None) -> bytes:
    found = hf_hub_download("me/x", path, endpoint=hub.endpoint, token=token, revision=revision)
    return Path(found).read_bytes()


def test_small_and_large_files_come_as_they_are(hub: LoopbackHub, sha: str) -> None:
    assert {path: downloaded(hub, path) for path in FILES} == FILES


def test_large_files_come_from_another_origin_that_sees_no_token(hub: LoopbackHub, sha: str) -> None:
    assert downloaded(hub, "tasks/movie.safetensors", token="hf_me") == LARGE
    head, body = hub.requests
    assert (head.method, head.status, body.path.split("/")[1], body.sent) == ("HEAD", 302, "cdn", len(LARGE))
    address = f"{hub.endpoint.replace('127.0.0.1', 'localhost')}{body.path}"
    assert httpx2.get(address, headers={"Authorization": "Bearer hf_me"}).status_code == 400


def test_a_commit_stays_what_it_is_while_its_branch_moves(hub: LoopbackHub, sha: str) -> None:
    moved = hub.commit("me/x", {"config.json": b"{}", "tasks/movie.safetensors": None})
    pinned = Path(snapshot_download("me/x", revision=sha, endpoint=hub.endpoint))
    newest = Path(snapshot_download("me/x", endpoint=hub.endpoint))
    assert (pinned.name, newest.name) == (sha, moved)
    assert {path: (pinned / path).read_bytes() for path in FILES} == FILES
    assert (newest / "config.json").read_bytes() == b"{}"
    assert not (newest / "tasks").exists()


def test_a_file_is_of_the_commit_that_is_asked_for(hub: LoopbackHub, sha: str) -> None:
    hub.commit("me/x", {"config.json": b"{}"})
    hub.commit("me/x", {"config.json": b"[]"}, branch="trial/one")
    hub.repositories["me/x"].tags["v1"] = sha
    found = [downloaded(hub, "config.json", revision=name) for name in (sha, "v1", "main", "trial/one", None)]
    assert found == [SMALL, SMALL, b"{}", b"[]", b"{}"]


def test_a_snapshot_fetches_only_what_its_patterns_name(hub: LoopbackHub, sha: str) -> None:
    folder = Path(snapshot_download("me/x", allow_patterns=["config.json"], endpoint=hub.endpoint))
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert not any("movie" in logged.path for logged in hub.requests)


def test_ranges_of_a_file_are_read_alone(hub: LoopbackHub, api: HfApi, sha: str) -> None:
    files = HfFileSystem(endpoint=hub.endpoint, token="hf_me", skip_instance_cache=True)
    with files.open("me/x/tasks/movie.safetensors", block_size=1000, revision=sha) as file:
        file.seek(2000)
        assert file.read(100) == LARGE[2000:2100]
    assert sum(logged.sent for logged in hub.requests if logged.path.startswith("/cdn/")) <= 1100


@pytest.mark.parametrize(
    ("asked", "status", "content", "range_sent"),
    [
        ("bytes=2-4", 206, SMALL[2:5], "bytes 2-4/15"),
        ("bytes=10-", 206, SMALL[10:], "bytes 10-14/15"),
        ("bytes=-4", 206, SMALL[-4:], "bytes 11-14/15"),
        ("bytes=0-99", 206, SMALL, "bytes 0-14/15"),
        ("bytes=15-", 416, b"", "bytes */15"),
        ("bytes=0-1,4-5", 200, SMALL, None),
    ],
)
def test_ranges(hub: LoopbackHub, sha: str, asked: str, status: int, content: bytes, range_sent: str | None) -> None:
    found = httpx2.get(f"{hub.endpoint}/me/x/resolve/{sha}/config.json", headers={"Range": asked})
    assert (found.status_code, found.content, found.headers.get("Content-Range")) == (status, content, range_sent)


def test_paths_are_described_and_those_not_there_are_left_out(api: HfApi, hub: LoopbackHub, sha: str) -> None:
    found = api.get_paths_info("me/x", ["config.json", "tasks", "tasks/movie.safetensors", "nothing"], revision=sha)
    files = {entry.path: entry for entry in found if isinstance(entry, RepoFile)}
    assert [entry.path for entry in found] == ["config.json", "tasks", "tasks/movie.safetensors"]
    large = files["tasks/movie.safetensors"]
    assert (files["config.json"].size, files["config.json"].lfs) == (len(SMALL), None)
    assert large.lfs is not None
    assert large.lfs.sha256 == hub.history("me/x")[0].tree[large.path].sha256


def test_a_tree_comes_in_pages(api: HfApi, hub: LoopbackHub, sha: str) -> None:
    hub.page_size = 2
    hub.commit("me/x", {f"tasks/{i}": SMALL for i in range(3)})
    all_paths = [".gitattributes", "config.json", "tasks", *(f"tasks/{i}" for i in range(3)), "tasks/movie.safetensors"]
    assert [entry.path for entry in api.list_repo_tree("me/x", recursive=True)] == all_paths
    assert len(hub.requests) == 4
    assert [entry.path for entry in api.list_repo_tree("me/x")] == all_paths[:3]
    assert [entry.path for entry in api.list_repo_tree("me/x", "tasks")] == all_paths[3:]
    assert len(list(Path(snapshot_download("me/x", endpoint=hub.endpoint)).rglob("*"))) == len(all_paths)


def test_a_model_says_its_commit_and_its_files(api: HfApi, hub: LoopbackHub, sha: str) -> None:
    info = api.model_info("me/x", files_metadata=True)
    assert (info.id, info.sha, info.private) == ("me/x", sha, False)
    sizes = {sibling.rfilename: sibling.size for sibling in info.siblings or []}
    assert {path: sizes[path] for path in FILES} == {path: len(data) for path, data in FILES.items()}
    assert api.model_info("me/x", revision=sha[:7]).sha == sha


def test_a_private_repository_is_there_for_its_owner_only(hub: LoopbackHub, sha: str) -> None:
    hub.repositories["me/x"].private = True
    for token in ("hf_other", False):
        with pytest.raises(RepositoryNotFoundError):
            downloaded(hub, "config.json", token=token)
    assert downloaded(hub, "config.json", token="hf_me_read") == SMALL


def test_a_gated_repository_shows_what_it_has_but_gives_no_files(hub: LoopbackHub, sha: str) -> None:
    hub.repositories["me/x"].gated = True
    assert HfApi(endpoint=hub.endpoint, token="hf_other").model_info("me/x").sha == sha
    with pytest.raises(GatedRepoError):
        downloaded(hub, "config.json", token="hf_other")
    assert downloaded(hub, "config.json", token="hf_me") == SMALL


def test_a_wrong_token_is_refused_even_for_what_is_public(hub: LoopbackHub, sha: str) -> None:
    with pytest.raises(HfHubHTTPError, match="Invalid credentials") as caught:
        downloaded(hub, "config.json", token="hf_wrong")
    assert caught.value.response.status_code == 401


def test_what_is_missing_is_named(hub: LoopbackHub, sha: str) -> None:
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download("me/nothing", "config.json", endpoint=hub.endpoint, token="hf_me")
    with pytest.raises(RevisionNotFoundError):
        downloaded(hub, "config.json", revision="nothing")
    with pytest.raises(RemoteEntryNotFoundError):
        downloaded(hub, "nothing")


def test_what_was_downloaded_is_there_offline_and_nothing_is_asked(hub: LoopbackHub, sha: str) -> None:
    snapshot_download("me/x", allow_patterns=["tasks/*"], endpoint=hub.endpoint)
    hub.requests.clear()
    again = snapshot_download("me/x", allow_patterns=["tasks/*"], endpoint=hub.endpoint, local_files_only=True)
    assert (Path(again) / "tasks/movie.safetensors").read_bytes() == LARGE
    with pytest.raises(IncompleteSnapshotError):
        snapshot_download("me/x", endpoint=hub.endpoint, local_files_only=True)
    with pytest.raises(LocalEntryNotFoundError):
        hf_hub_download("me/x", "config.json", endpoint=hub.endpoint, local_files_only=True)
    assert hub.requests == []


def test_a_process_that_is_offline_reads_what_another_downloaded(
    hub: LoopbackHub, hub_environment: dict[str, str], sha: str
) -> None:
    fetch = "from huggingface_hub import hf_hub_download; print(hf_hub_download('me/x', 'config.json'))"
    path = run_python(fetch, hub_environment)
    hub.requests.clear()
    assert run_python(fetch, {**hub_environment, "HF_HUB_OFFLINE": "1"}) == path
    assert (Path(path).read_bytes(), hub.requests) == (SMALL, [])
