"""Listings of a repository: those of the Hub or, if it does not answer, those of its client's cache.

The files of a commit never change, so answers are cached for the life of the process; failures are not.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from dtscodec.storage.hub_client import ask_api, hub_api, is_silence

Sizes = Mapping[str, int | None]
"""Entries of a directory: name -> size in bytes, or None for a directory."""

_COMMIT = re.compile("[0-9a-f]{40}")


def commit_of(repo: str, revision: str | None) -> str:
    """Return the commit of a revision; if the Hub does not answer, the last known one.

    Parameters
    ----------
    repo : str
        `user/name`.
    revision : str or None
        A branch, tag or commit; None for the main branch.

    Raises
    ------
    Exception
        Errors of the client.
    """
    from huggingface_hub import get_token

    # A full commit id needs no request.
    if revision and _COMMIT.fullmatch(revision):
        return revision
    try:
        return _commit_at_hub(hub_api().endpoint, get_token(), repo, revision)
    except Exception as error:
        # The cache stands in for a Hub that does not answer, not for one that refuses.
        if not is_silence(error) or (cached := _cached_commit(repo, revision)) is None:
            raise
        return cached


def tree(repo: str, commit: str, path: str) -> Sizes:
    """Return the entries of a directory; if the Hub does not answer, those in the cache, which may be fewer.

    Parameters
    ----------
    repo, commit : str
        `user/name`, and 40 hex digits.
    path : str
        The directory within the repository; empty for its top.

    Raises
    ------
    Exception
        Errors of the client; also if the Hub does not answer and the cache does not have the commit.
    """
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
    """Return the entries of a directory as the Hub lists them, for the arguments of `tree`.

    There are none if there is no such directory.
    """
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:
        pages = ask_api(f"{repo}/tree/{commit}" + (f"/{quote(path, safe='')}" if path else ""))
    except RemoteEntryNotFoundError:
        return {}
    entries = [entry for page in pages for entry in page]
    return {PurePosixPath(e["path"]).name: e["size"] if e["type"] == "file" else None for e in entries}


def snapshot(repo: str, commit: str) -> Path:
    """Return the folder of a commit in the client's cache."""
    return _cache(repo) / "snapshots" / commit


def clear_listings() -> None:
    """Clear all cached answers, so that branches are resolved again."""
    _commit_at_hub.cache_clear()
    whole_tree.cache_clear()


@lru_cache(256)
def _commit_at_hub(endpoint: str, token: str | None, repo: str, revision: str | None) -> str:
    """Return the commit of a revision on the Hub, and record it in the client's cache as the client does."""
    # Endpoint and token are part of the cache's key: others may get another answer.
    (answer,) = ask_api(repo + (f"/revision/{quote(revision, safe='')}" if revision else ""))
    commit: str = answer["sha"]
    ref = _ref(repo, revision)
    with suppress(OSError):  # The cache may be read-only.
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(commit)
    return commit


def _cached_commit(repo: str, revision: str | None) -> str | None:
    """Return the commit of a revision in the client's cache, if any."""
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
