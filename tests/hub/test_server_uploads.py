"""The real client uploads to the loopback Hub."""

from collections.abc import Callable
from hashlib import sha256

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, RemoteEntryNotFoundError, RepositoryNotFoundError

from tests.fakes.hub.server import LoopbackHub
from tests.hub.helpers import LARGE, SMALL, uploads_large_files

pytestmark = uploads_large_files


def upload(api: HfApi, files: dict[str, bytes], *, parent: str | None = None, branch: str | None = None) -> str:
    operations = [CommitOperationAdd(path, data) for path, data in files.items()]
    done = api.create_commit("me/x", operations, commit_message="upload", parent_commit=parent, revision=branch)
    return done.oid


def test_a_repository_is_created_once_and_may_then_be_there_already(hub: LoopbackHub, api: HfApi) -> None:
    assert api.create_repo("me/x").repo_id == api.create_repo("me/x", exist_ok=True).repo_id == "me/x"
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_repo("me/x")
    assert caught.value.response.status_code == 409
    assert not hub.repositories["me/x"].private


def test_a_repository_can_be_private(hub: LoopbackHub, api: HfApi) -> None:
    api.create_repo("x", private=True)
    assert hub.repositories["me/x"].private


def test_small_files_come_with_the_commit(hub: LoopbackHub, api: HfApi) -> None:
    hub.create("me/x")
    assert upload(api, {"config.json": SMALL, "empty": b""}) == hub.history("me/x")[0].sha
    assert {"config.json": SMALL, "empty": b""}.items() <= hub.files("me/x").items()
    assert not any("lfs" in logged.path for logged in hub.requests)


def test_large_files_come_before_the_commit(hub: LoopbackHub, api: HfApi) -> None:
    hub.create("me/x")
    upload(api, {"model.safetensors": LARGE})
    assert hub.files("me/x")["model.safetensors"] == LARGE
    assert hub.history("me/x")[0].tree["model.safetensors"].sha256 == sha256(LARGE).hexdigest()


def test_very_large_files_come_in_parts(hub: LoopbackHub, api: HfApi) -> None:
    hub.create("me/x")
    hub.part_size = 100_000
    upload(api, {"model.safetensors": LARGE})
    assert hub.files("me/x")["model.safetensors"] == LARGE
    assert len([logged for logged in hub.requests if logged.method == "PUT"]) == 3


def test_large_text_goes_to_large_file_storage(hub: LoopbackHub, api: HfApi) -> None:
    hub.create("me/x")
    hub.large_size = 10
    upload(api, {"vocab.txt": b"a\n" * 5, "short.txt": b"a\n" * 4})
    tree = hub.history("me/x")[0].tree
    assert (tree["vocab.txt"].sha256 is None, tree["short.txt"].sha256 is None) == (False, True)


def test_each_call_makes_exactly_one_commit(hub: LoopbackHub, api: HfApi) -> None:
    hub.create("me/x")
    upload(api, {f"part{i}/model.safetensors": LARGE + bytes([i]) for i in range(3)} | {"config.json": SMALL})
    assert [commit.title for commit in hub.history("me/x")] == ["upload", "initial commit"]


def test_what_has_not_changed_is_not_sent_again(hub: LoopbackHub, api: HfApi) -> None:
    hub.create("me/x")
    before = upload(api, {"model.safetensors": LARGE, "config.json": SMALL})
    hub.requests.clear()
    assert upload(api, {"model.safetensors": LARGE, "config.json": SMALL}) == before
    assert not any(logged.method == "PUT" or "/commit/" in logged.path for logged in hub.requests)


def test_large_content_that_is_there_under_another_name_is_not_sent_again(hub: LoopbackHub, api: HfApi) -> None:
    hub.create("me/x")
    upload(api, {"model.safetensors": LARGE})
    hub.requests.clear()
    upload(api, {"copy.safetensors": LARGE})
    assert hub.files("me/x")["copy.safetensors"] == LARGE
    assert not any(logged.method == "PUT" for logged in hub.requests)


def test_files_and_folders_are_deleted_and_copied(hub: LoopbackHub, api: HfApi) -> None:
    hub.create("me/x")
    upload(api, {"a/1": SMALL, "a/2": SMALL, "ab": SMALL, "gone": SMALL, "model.safetensors": LARGE})
    delete = [CommitOperationDelete("a/"), CommitOperationDelete("gone")]
    copy = [CommitOperationCopy("ab", "small.json"), CommitOperationCopy("model.safetensors", "large.safetensors")]
    api.create_commit("me/x", [*delete, *copy], commit_message="tidy")
    kept = {"ab": SMALL, "small.json": SMALL, "model.safetensors": LARGE, "large.safetensors": LARGE}
    assert {path: data for path, data in hub.files("me/x").items() if path != ".gitattributes"} == kept


def test_what_is_not_there_cannot_be_deleted(hub: LoopbackHub, api: HfApi) -> None:
    hub.create("me/x")
    with pytest.raises(RemoteEntryNotFoundError):
        api.delete_file("nothing", "me/x")


def test_a_commit_on_a_parent_that_is_no_longer_the_newest_is_refused(hub: LoopbackHub, api: HfApi) -> None:
    parent = hub.create("me/x").branches["main"]
    moved = hub.commit("me/x", {"other.json": SMALL})
    with pytest.raises(HfHubHTTPError) as caught:
        upload(api, {"config.json": SMALL}, parent=parent)
    assert caught.value.response.status_code == 412
    assert hub.history("me/x")[0].sha == moved
    assert upload(api, {"config.json": SMALL}, parent=moved[:7]) == hub.history("me/x")[0].sha


def test_branches_and_tags_are_made_and_uploaded_to(hub: LoopbackHub, api: HfApi) -> None:
    first = hub.create("me/x").branches["main"]
    api.create_tag("me/x", tag="v1")
    api.create_branch("me/x", branch="trial/one")
    api.create_branch("me/x", branch="trial/one", exist_ok=True)
    moved = upload(api, {"config.json": SMALL}, branch="trial/one")
    found = api.list_repo_refs("me/x")
    assert {ref.name: ref.target_commit for ref in found.branches} == {"main": first, "trial/one": moved}
    assert [(ref.name, ref.target_commit) for ref in found.tags] == [("v1", first)]
    assert [commit.commit_id for commit in api.list_repo_commits("me/x", revision="trial/one")] == [moved, first]


def test_a_card_is_checked_before_anything_is_sent(hub: LoopbackHub, api: HfApi) -> None:
    hub.create("me/x")
    for card in (b"---\nbase_model_relation: cousin\n---\n", b"---\ntags: [\n---\n"):
        with pytest.raises(ValueError, match="Invalid metadata"):
            upload(api, {"README.md": card, "model.safetensors": LARGE})
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        upload(api, {"README.md": b"Hello"})


def test_the_metadata_of_a_card_is_shown(hub: LoopbackHub, api: HfApi) -> None:
    hub.create("me/x")
    upload(api, {"README.md": b"---\nlibrary_name: dtscodec\nbase_model_relation: adapter\n---\nHello"})
    card = api.model_info("me/x").card_data
    assert card is not None
    assert {"library_name": "dtscodec", "base_model_relation": "adapter"}.items() <= vars(card).items()


@pytest.mark.parametrize(
    ("token", "status"), [("hf_other", 403), ("hf_me_read", 403), ("hf_wrong", 401)], ids=["other", "read", "wrong"]
)
def test_only_the_owner_writes(hub: LoopbackHub, token: str, status: int) -> None:
    hub.create("me/x")
    stranger = HfApi(endpoint=hub.endpoint, token=token)
    attempts: list[Callable[[], object]] = [
        lambda: stranger.create_repo("me/new"),
        lambda: upload(stranger, {"config.json": SMALL}),
    ]
    for attempt in attempts:
        with pytest.raises(HfHubHTTPError) as caught:
            attempt()
        assert caught.value.response.status_code == status
    assert (len(hub.history("me/x")), list(hub.repositories)) == (1, ["me/x"])


def test_without_a_token_nobody_writes(hub: LoopbackHub) -> None:
    hub.create("me/x")
    with pytest.raises(RepositoryNotFoundError):
        upload(HfApi(endpoint=hub.endpoint, token=False), {"config.json": SMALL})


def test_who_one_is_depends_on_the_token(api: HfApi) -> None:
    assert api.whoami()["name"] == "me"
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        api.whoami(token="hf_wrong")
