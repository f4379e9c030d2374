"""What git keeps of a repository, in memory: blobs by digest, commits with whole trees, branches and tags."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from typing import Any

from tests.fakes.hub.wire import Refused

Change = bytes | None
"""A file's new content, or that it is deleted."""


@dataclass(frozen=True)
class Blob:
    """A file as a tree knows it. `sha256` is that of the content if it is in large file storage."""

    oid: str
    size: int
    sha256: str | None = None

    @property
    def etag(self) -> str:
        return self.sha256 or self.oid

    @property
    def pointer_size(self) -> int:
        return len(_pointer(self.etag, self.size))

    def describe(self, path: str) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": path, "size": self.size, "oid": self.oid}
        if self.sha256 is not None:
            entry["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": self.pointer_size}
        return entry


Tree = Mapping[str, Blob]


@dataclass(frozen=True)
class Commit:
    sha: str
    parent: str | None
    title: str
    tree: Tree


@dataclass
class Repository:
    """A repository of one owner, who alone may write. A gated one gives its files to nobody else."""

    name: str
    private: bool = False
    gated: bool = False
    contents: dict[str, bytes] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """As on the Hub, there is a first commit from the start, with one file."""
        attributes = self.store(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n", is_large=False)
        self.branches["main"] = self._record(None, "initial commit", {".gitattributes": attributes}).sha

    @property
    def owner(self) -> str:
        return self.name.split("/")[0]

    def store(self, data: bytes, is_large: bool) -> Blob:
        blob = large_blob(sha256(data).hexdigest(), len(data)) if is_large else Blob(git_oid(data), len(data))
        self.contents[blob.etag] = data
        return blob

    def commit(self, branch: str, title: str, changes: Mapping[str, Blob | None], parent: str | None = None) -> Commit:
        """Exactly one commit on a branch, which must still be at `parent` (at least seven digits), if that is given."""
        if branch not in self.branches:
            raise revision_not_found(branch)
        head = self.commits[self.branches[branch]]
        if parent is not None and not head.sha.startswith(parent):
            raise Refused(412, None, "A commit has happened since. Please refresh and try again.")
        tree = {**head.tree, **changes}
        made = self._record(head.sha, title, {path: blob for path, blob in tree.items() if blob is not None})
        self.branches[branch] = made.sha
        return made

    def find(self, revision: str) -> Commit:
        """The commit that a branch, a tag or seven digits of its name, or more, stand for."""
        refs = self.tags | self.branches
        name = refs.get(revision) or refs.get(re.sub("^refs/(heads|tags)/", "", revision)) or revision
        found = [commit for sha, commit in self.commits.items() if sha.startswith(name) and len(name) >= 7]
        if len(found) != 1:
            raise revision_not_found(revision)
        return found[0]

    def history(self, revision: str = "main") -> Iterator[Commit]:
        """Newest first."""
        commit: Commit | None = self.find(revision)
        while commit is not None:
            yield commit
            commit = self.commits[commit.parent] if commit.parent else None

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return {path: self.contents[blob.etag] for path, blob in self.find(revision).tree.items()}

    def _record(self, parent: str | None, title: str, tree: Tree) -> Commit:
        entries = sorted((path, blob.oid) for path, blob in tree.items())
        commit = Commit(sha1(repr((self.name, parent, title, entries)).encode()).hexdigest(), parent, title, tree)
        self.commits[commit.sha] = commit
        return commit


def revision_not_found(revision: str) -> Refused:
    return Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")


def git_oid(data: bytes) -> str:
    return sha1(b"blob %d\0" % len(data) + data).hexdigest()


def large_blob(digest: str, size: int) -> Blob:
    """What git holds in its place is a pointer."""
    return Blob(git_oid(_pointer(digest, size)), size, digest)


def _pointer(digest: str, size: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {size}\n".encode()


def folders(tree: Tree) -> dict[str, str]:
    """All folders of a tree, each with a digest of what is in it."""
    parents = {path[:at] for path in tree for at in range(len(path)) if path[at] == "/"}
    return {
        folder: sha1(
            repr(sorted((p, b.oid) for p, b in tree.items() if p.startswith(f"{folder}/"))).encode()
        ).hexdigest()
        for folder in sorted(parents)
    }
