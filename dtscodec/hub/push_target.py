"""The repository that a push goes to: its state, and what is created for the push and deleted if that fails."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from dtscodec.hub.repository import INDEX
from dtscodec.packs.directory_index import DirectoryIndex, parse_directory_index
from dtscodec.storage.hub_client import WAIT_SECONDS, hub_api
from dtscodec.storage.hub_path import HubPath

_OF_THE_HUB = {".gitattributes"}
"""Files that a new repository has."""


@dataclass(frozen=True, slots=True)
class PushTarget:
    """A branch of a repository as it is: its commit, and small files.

    For a branch that does not exist yet it is the state of the main one.

    Parameters
    ----------
    repo : str
        `user/name`.
    branch : str or None
        None for the main one.
    commit : str or None
        None for a repository that does not exist.
    has_branch : bool
        Whether the branch exists.
    """

    repo: str
    branch: str | None
    commit: str | None
    has_branch: bool = True

    @classmethod
    def read(cls, repo: str, branch: str | None) -> "PushTarget":
        """Ask the Hub, where there may be no such repository."""
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            return cls.find(repo, branch)
        except RepositoryNotFoundError:
            return cls(repo, branch, None, has_branch=branch is None)

    @classmethod
    def find(cls, repo: str, branch: str | None) -> "PushTarget":
        """Ask the Hub."""
        from huggingface_hub.errors import RevisionNotFoundError

        try:
            return cls(repo, branch, hub_api().repo_info(repo, revision=branch, timeout=WAIT_SECONDS).sha)
        except RevisionNotFoundError:
            main = hub_api().repo_info(repo, timeout=WAIT_SECONDS).sha
            return cls(repo, branch, main, has_branch=False)

    def file(self, path: str) -> bytes | None:
        """A file's content; None if there is no such file."""
        place = HubPath(self.repo, self.commit, path) if self.commit else None
        return place.read_bytes() if place and place.is_file() else None

    def present(self, paths: list[str]) -> set[str]:
        """Return which of these files exist."""
        if self.commit is None:
            return set()
        return {entry.path for entry in hub_api().get_paths_info(self.repo, paths, revision=self.commit)}

    def folder(self) -> DirectoryIndex | None:
        """Its index."""
        data = self.file(INDEX)
        return None if data is None else parse_directory_index(data, f"hf://{self.repo}/{INDEX}")


@contextmanager
def prepared_target(there: PushTarget, private: bool) -> Iterator[PushTarget]:
    """A target whose repository and branch exist, created if needed; another process may create them first.

    If the push then fails, what we made is removed again, unless something has come into it.
    """
    api, has_made_repo, has_made_branch = hub_api(), False, False
    try:
        if there.commit is None:
            has_made_repo = _is_ours(lambda: api.create_repo(there.repo, private=private))
            there = PushTarget.find(there.repo, there.branch)
        if not there.has_branch:
            start = there
            has_made_branch = _is_ours(
                lambda: api.create_branch(start.repo, branch=start.branch, revision=start.commit)
            )
            there = replace(there, has_branch=True) if has_made_branch else PushTarget.find(there.repo, there.branch)
        yield there
    except BaseException:
        with suppress(Exception):  # The failure that led here is the one to report.
            _take_back(there, has_made_repo, has_made_branch)
        raise


def _is_ours(make: Callable[[], object]) -> bool:
    """Make something; False if it was there already."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        make()
    except HfHubHTTPError as error:
        if error.response.status_code != 409:
            raise
        return False
    return True


def _take_back(there: PushTarget, has_made_repo: bool, has_made_branch: bool) -> None:
    """Remove what we made and nobody has used. A commit may be there although its answer was lost: then all stays."""
    if not has_made_repo and not has_made_branch:
        return
    api = hub_api()
    refs = api.list_repo_refs(there.repo, include_pull_requests=True)
    heads = {branch.name: branch.target_commit for branch in refs.branches}
    if not has_made_repo:
        if heads.get(there.branch) == there.commit:
            api.delete_branch(there.repo, branch=there.branch)
        return
    files = {file for head in heads.values() for file in api.list_repo_files(there.repo, revision=head)}
    if files <= _OF_THE_HUB and not refs.tags and not refs.pull_requests:
        api.delete_repo(there.repo)
