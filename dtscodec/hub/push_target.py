"""The repository of a push: its state, and its creation, which is undone if the push fails."""

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
    """State of a branch of a repository; of the main branch if the branch does not exist yet.

    Parameters
    ----------
    repo : str
        `user/name`.
    branch : str or None
        Its name; None for the main branch.
    commit : str or None
        40 hex digits; None for a repository that does not exist.
    has_branch : bool
        Whether the branch exists.
    """

    repo: str
    branch: str | None
    commit: str | None
    has_branch: bool = True

    @classmethod
    def read(cls, repo: str, branch: str | None) -> "PushTarget":
        """Return the state of a branch; the repository need not exist.

        Parameters
        ----------
        repo : str
            `user/name`.
        branch : str or None
            Its name; None for the main branch.
        """
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            return cls.find(repo, branch)
        except RepositoryNotFoundError:
            return cls(repo, branch, None, has_branch=branch is None)

    @classmethod
    def find(cls, repo: str, branch: str | None) -> "PushTarget":
        """Return the state of a branch of a repository that exists; see `read`."""
        from huggingface_hub.errors import RevisionNotFoundError

        try:
            return cls(repo, branch, hub_api().repo_info(repo, revision=branch, timeout=WAIT_SECONDS).sha)
        except RevisionNotFoundError:
            # A branch that does not exist starts at the main one.
            main = hub_api().repo_info(repo, timeout=WAIT_SECONDS).sha
            return cls(repo, branch, main, has_branch=False)

    def file(self, path: str) -> bytes | None:
        """Return the content of a file of the repository; None if there is no such file."""
        found = HubPath(self.repo, self.commit, path) if self.commit else None
        return found.read_bytes() if found and found.is_file() else None

    def present(self, paths: list[str]) -> set[str]:
        """Return those of some files that exist in the repository."""
        if self.commit is None:
            return set()
        return {entry.path for entry in hub_api().get_paths_info(self.repo, paths, revision=self.commit)}

    def index(self) -> DirectoryIndex | None:
        """Return the repository's index of packs; None if it has none."""
        data = self.file(INDEX)
        return None if data is None else parse_directory_index(data, f"hf://{self.repo}/{INDEX}")


@contextmanager
def prepared_target(target: PushTarget, private: bool) -> Iterator[PushTarget]:
    """Create the repository and the branch of a push if needed, and yield its state.

    Another process may create them first. If the push fails, a repository or branch that was created here is deleted,
    unless somebody has used it.

    Parameters
    ----------
    target : PushTarget
        The state before.
    private : bool
        Whether a repository that is created is private.
    """
    api, has_made_repo, has_made_branch = hub_api(), False, False
    try:
        if target.commit is None:
            # Another process may be first: then it is not ours to delete.
            has_made_repo = _is_ours(lambda: api.create_repo(target.repo, private=private))
            target = PushTarget.find(target.repo, target.branch)
        if not target.has_branch:
            start = target
            has_made_branch = _is_ours(
                lambda: api.create_branch(start.repo, branch=start.branch, revision=start.commit)
            )
            # A branch that another process made may already be ahead.
            target = (
                replace(target, has_branch=True) if has_made_branch else PushTarget.find(target.repo, target.branch)
            )
        yield target
    except BaseException:
        with suppress(Exception):  # The first failure is the one to report.
            _undo(target, has_made_repo, has_made_branch)
        raise


def _is_ours(make: Callable[[], object]) -> bool:
    """Call a function that creates a repository or a branch; return False if it existed already."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        make()
    except HfHubHTTPError as error:
        # 409, Conflict: it exists.
        if error.response.status_code != 409:
            raise
        return False
    return True


def _undo(target: PushTarget, has_made_repo: bool, has_made_branch: bool) -> None:
    """Delete the repository or branch that was created here, unless it has a commit.

    Our own commit may have been made although the answer was lost; then all stays.
    """
    if not has_made_repo and not has_made_branch:
        return
    api = hub_api()
    refs = api.list_repo_refs(target.repo, include_pull_requests=True)
    heads = {branch.name: branch.target_commit for branch in refs.branches}
    if not has_made_repo:
        # Still where it was created, so nobody has committed to it.
        if heads.get(target.branch) == target.commit:
            api.delete_branch(target.repo, branch=target.branch)
        return
    # On any branch, a file that the Hub did not put there is somebody's work.
    files = {file for head in heads.values() for file in api.list_repo_files(target.repo, revision=head)}
    if files <= _OF_THE_HUB and not refs.tags and not refs.pull_requests:
        api.delete_repo(target.repo)
