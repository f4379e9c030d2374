"""What lies where in a repository of the Hub: as the Hub says, or if it does not answer, as its client's cache has it.

What lies at a commit never changes. What the Hub said is kept in the life of a process; that it did not answer is not.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from dtscodec.storage.hub_client import ask_api, hub_api, is_silence

Sizes = Mapping[str, int | None]
"""What lies in a directory, by name: of files their sizes, of directories None."""

_COMMIT = re.compile("[0-9a-f]{40}")


def commit_of(repo: str, revision: str | None) -> str:
    """The commit that a branch, tag or commit names; if the Hub does not answer, as last seen."""
    from huggingface_hub import get_token

    if revision and _COMMIT.fullmatch(revision):
        return revision
    try:
        return _said_commit(hub_api().endpoint, get_token(), repo, revision)
    except Exception as error:
        if not is_silence(error) or (seen := _seen_commit(repo, revision)) is None:
            raise
        return seen


def tree(repo: str, commit: str, path: str) -> Sizes:
    """What lies in a directory; if the Hub does not answer, what of it is in the cache, where the commit is."""
    try:
        return whole_tree(repo, commit, path)
    except Exception as error:
        if not is_silence(error) or not snapshot(repo, commit).is_dir():
            raise
    folder = snapshot(repo, commit) / path
    if not folder.is_dir():
        return {}
    return {file.name: None if file.is_dir() else file.stat().st_size for file in folder.iterdir()}


@lru_cache(256)
def whole_tree(repo: str, commit: str, path: str) -> Sizes:
    """What the Hub says lies in a directory; nothing if there is no such directory."""
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:
        pages = ask_api(f"{repo}/tree/{commit}" + (f"/{quote(path, safe='')}" if path else ""))
    except RemoteEntryNotFoundError:
        return {}
    entries = [entry for page in pages for entry in page]
    return {PurePosixPath(e["path"]).name: e["size"] if e["type"] == "file" else None for e in entries}


def snapshot(repo: str, commit: str) -> Path:
    """Where the client's cache keeps a commit."""
    return _cache(repo) / "snapshots" / commit


def forget() -> None:
    """Forget what the Hub said, so that branches are looked up again."""
    _said_commit.cache_clear()
    whole_tree.cache_clear()


@lru_cache(256)
def _said_commit(endpoint: str, token: str | None, repo: str, revision: str | None) -> str:
    """What the Hub says to who asks; entered into the cache, as the client does, for when it does not answer."""
    (said,) = ask_api(repo + (f"/revision/{quote(revision, safe='')}" if revision else ""))
    commit: str = said["sha"]
    ref = _ref(repo, revision)
    with suppress(OSError):  # It may be one that is only read.
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(commit)
    return commit


def _seen_commit(repo: str, revision: str | None) -> str | None:
    """What the cache says."""
    with suppress(OSError, UnicodeDecodeError):
        found = _COMMIT.fullmatch(_ref(repo, revision).read_text().strip())
        return found and found[0]
    return None


def _ref(repo: str, revision: str | None) -> Path:
    from huggingface_hub import constants

    return _cache(repo) / "refs" / (revision or constants.DEFAULT_REVISION)


def _cache(repo: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model")
