"""All repositories of a Hub, who may do what, and what tests do behind the client's back."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.hub.repository import Change, Commit, Repository
from tests.fakes.hub.wire import Refused, Request


@dataclass(frozen=True)
class Account:
    user: str
    role: str


class Store:
    """Settings are plain attributes, for tests to change."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.repositories: dict[str, Repository] = {}
        self.accounts = {
            "hf_me": Account("me", "write"),
            "hf_me_read": Account("me", "read"),
            "hf_other": Account("other", "write"),
        }
        self.page_size = 1000
        """Entries of a tree in one answer."""
        self.large_size = 100_000
        """From this size on, files go to large file storage; binary ones do anyway."""
        self.part_size: int | None = None
        """Larger uploads come in parts of this size."""
        self.parts: dict[tuple[str, int], bytes] = {}
        """Parts that have come, by digest of the whole and number."""
        self.xet_folder: Path | None = None
        """Where Xet's local mode keeps what it stores; without it, the Hub has no Xet."""
        self.xet_hashes: dict[str, str] = {}
        """Of each file by its sha256: only the client can compute them, so the test must tell."""

    def is_large(self, size: int, sample: bytes) -> bool:
        return size > 0 and (size >= self.large_size or b"\0" in sample)

    def create(self, name: str, *, private: bool = False, gated: bool = False) -> Repository:
        self.repositories[name] = Repository(name, private, gated)
        return self.repositories[name]

    def commit(
        self, name: str, changes: Mapping[str, Change], *, branch: str = "main", title: str = "behind the client's back"
    ) -> str:
        """Move a branch, which is made of main if there is none."""
        with self.lock:
            repository = self.repositories[name]
            repository.branches.setdefault(branch, repository.branches["main"])
            blobs = {
                path: None if data is None else repository.store(data, self.is_large(len(data), data[:512]))
                for path, data in changes.items()
            }
            return repository.commit(branch, title, blobs).sha

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        return self.repositories[name].files(revision)

    def history(self, name: str, revision: str = "main") -> list[Commit]:
        """Newest first."""
        return list(self.repositories[name].history(revision))

    def account(self, request: Request) -> Account | None:
        """Who asks. As on the Hub, a wrong token is refused even where none is needed."""
        if request.token is None:
            return None
        if request.token not in self.accounts:
            raise Refused(401, None, "Invalid credentials in Authorization header")
        return self.accounts[request.token]

    def readable(self, request: Request, name: str) -> Repository:
        """A repository to read. One that is private is said not to be there, and to strangers so is one that is not."""
        account, repository = self.account(request), self.repositories.get(name)
        if repository is None or (repository.private and (account is None or account.user != repository.owner)):
            raise unauthorized() if account is None else Refused(404, "RepoNotFound", "Repository not found")
        return repository

    def open_to(self, request: Request, name: str) -> Repository:
        """A repository whose files may be read."""
        repository, account = self.readable(request, name), self.account(request)
        if repository.gated and (account is None or account.user != repository.owner):
            message = f"Access to model {name} is restricted and you are not in the authorized list."
            raise Refused(401 if account is None else 403, "GatedRepo", message)
        return repository

    def writable(self, request: Request, name: str) -> Repository:
        repository = self.readable(request, name)
        self.check_writer(request, repository.owner)
        return repository

    def check_writer(self, request: Request, owner: str) -> None:
        account = self.account(request)
        if account is None:
            raise unauthorized()
        if account != Account(owner, "write"):
            raise Refused(403, None, f"Forbidden: you must use a write token of {json.dumps(owner)}")


def unauthorized() -> Refused:
    """The Hub names no code here: the client takes any 401 of an https address for a repository that is not found.

    The loopback has no https, so the code says it.
    """
    return Refused(401, "RepoNotFound", "Invalid username or password.")
