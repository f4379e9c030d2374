"""Paths of the Hugging Face Hub: `hf://user/repo[@revision][/path]`, by range or through the client's cache.

A revision is resolved once, to a commit; what lies at a commit never changes.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

from dtscodec.errors import BackendError
from dtscodec.messages import one_line
from dtscodec.storage.hub_client import hub_api
from dtscodec.storage.hub_files import HubFiles
from dtscodec.storage.hub_tree import Sizes, commit_of, snapshot, tree, whole_tree

SCHEME = "hf://"

_PART = re.compile(r"(?!\.\.?$)[^\\\x00-\x1f\x7f]{1,255}")
"""A part of a path: no backslash, no ``..``."""


@dataclass(frozen=True, slots=True, order=True)
class HubPath:
    """A file or directory of a repository at a commit, with the methods of `Path` that this package uses.

    Parameters
    ----------
    repo : str
        `user/name`.
    commit : str
        40 hex digits.
    path : str
        Within the repository; empty for all of it.
    """

    repo: str
    commit: str
    path: str = ""

    def __str__(self) -> str:
        return f"{SCHEME}{self.repo}@{self.commit}" + (f"/{self.path}" if self.path else "")

    def __truediv__(self, name: "str | PurePosixPath") -> "HubPath":
        return HubPath(self.repo, self.commit, f"{self.path}/{name}" if self.path else str(name))

    @property
    def name(self) -> str:
        """The last part of the path; of a repository, its name."""
        return PurePosixPath(self.path or self.repo).name

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot."""
        return PurePosixPath(self.path).suffix

    @property
    def parent(self) -> "HubPath":
        """The directory that contains it; the parent of a repository is the repository itself."""
        parent = PurePosixPath(self.path).parent.as_posix()
        return HubPath(self.repo, self.commit, "" if parent == "." else parent)

    @property
    def top(self) -> "HubPath":
        """The repository at this commit."""
        return HubPath(self.repo, self.commit)

    @property
    def fs(self) -> HubFiles:
        """The file system, with those methods of fsspec that this package uses."""
        return HubFiles(self.repo, self.commit)

    @property
    def storage_options(self) -> dict[str, Any]:
        """No options: the client has its own settings. This attribute tells remote paths from local ones."""
        return {}

    def relative_to(self, other: "HubPath") -> PurePosixPath:
        """Return the path relative to a directory of the same commit; ValueError if it is elsewhere."""
        if (self.repo, self.commit) != (other.repo, other.commit):
            raise ValueError(f"expected a path in {other}, got {self}")
        return PurePosixPath(self.path).relative_to(other.path)

    def exists(self) -> bool:
        """Return whether there is such a file or directory."""
        return self.is_dir() or self.is_file()

    def is_file(self) -> bool:
        """Return whether there is such a file."""
        # The cache first: it takes no request, and a file of a commit never changes.
        return bool(self.path) and (self.cached() is not None or self._around().get(self.name) is not None)

    def is_dir(self) -> bool:
        """Return whether there is such a directory."""
        return not self.path or (self.cached() is None and self._around().get(self.name, 0) is None)

    def sizes(self, is_complete: bool) -> Sizes:
        """Return the sizes of its files by name, None for directories.

        Parameters
        ----------
        is_complete : bool
            Whether the cache, which may lack files, stands in for the Hub with HF_HUB_OFFLINE only, not if the Hub
            does not answer.

        Raises
        ------
        Exception
            Errors of the client.
        """
        from huggingface_hub import is_offline_mode

        list_files = whole_tree if is_complete and not is_offline_mode() else tree
        return list_files(self.repo, self.commit, self.path)

    def stat(self) -> SimpleNamespace:
        """Return an object whose `st_size` is the size in bytes."""
        local = self.cached()
        return SimpleNamespace(st_size=local.stat().st_size if local else self.fs.info(self.path)["size"])

    def read_bytes(self) -> bytes:
        """Return the whole file, read through the cache."""
        return self.local().read_bytes()

    def cached(self) -> Path | None:
        """Return the file in the client's cache, or None."""
        found = snapshot(self.repo, self.commit) / self.path
        return found if found.is_file() else None

    def local(self) -> Path:
        """Return the file in the client's cache, downloaded if needed; an interrupted download is resumed."""
        return self.cached() or Path(hub_api().hf_hub_download(self.repo, self.path, revision=self.commit))

    def _around(self) -> Sizes:
        """Return the sizes of its siblings."""
        return tree(self.repo, self.commit, self.parent.path)


def parse_hub_path(name: str) -> HubPath:
    """Parse a name such as `hf://user/repo@branch/file`, and resolve its revision to a commit.

    Parameters
    ----------
    name : str
        `hf://user/repo[@revision][/path]`.

    Raises
    ------
    BackendError
        It is not the name of a model repository.
    Exception
        Errors of the client; see `dtscodec.storage.storage_errors`.
    """
    from huggingface_hub.utils import parse_hf_uri, validate_repo_id  # type: ignore[attr-defined]

    try:
        uri = parse_hf_uri(name)
        if uri.type != "model":
            raise ValueError(f"expected a model repository, got a {uri.type}")
        validate_repo_id(uri.id)
        path = uri.path_in_repo.strip("/")
        # The path is also used within the local cache, and must not lead out of it.
        if path and not all(_PART.fullmatch(part) for part in path.split("/")):
            raise ValueError(f"expected a path within the repository, got {path!r:.80}")
    except ValueError as error:
        raise BackendError(f"{name}: expected hf://user/repo[@revision][/path], got '{one_line(error)}'") from error
    return HubPath(uri.id, commit_of(uri.id, uri.revision), path)
