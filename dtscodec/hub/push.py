"""Local packs -> a repository of the Hub, in one commit."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from dtscodec.codec.folder_index import Folder, parse_folder
from dtscodec.errors import ConfigError
from dtscodec.hub.bases import base_of
from dtscodec.hub.card import card
from dtscodec.hub.repository import CONFIG, INDEX, README, LocalPack, index_of, is_ours, local_packs, small_files
from dtscodec.remote.failures import write_errors
from dtscodec.remote.hub_place import WAIT_SECONDS, HubPlace, forget, hub_api


@dataclass(frozen=True, slots=True)
class Push:
    """What a push changes, or changed.

    Parameters
    ----------
    repo : str
    files : dict
        Paths in the repository and the sizes of what is new there.
    unchanged : tuple of str
        Tasks whose packs are there already.
    url : str or None
        Of the commit; None if nothing was, or is to be, committed.
    """

    repo: str
    files: dict[str, int]
    unchanged: tuple[str, ...]
    url: str | None = None


def push(
    source: str | Path,
    repo: str,
    *,
    base: str | None = None,
    figures: Mapping[str, Mapping[str, float]] | None = None,
    revision: str | None = None,
    private: bool = False,
    message: str | None = None,
    dry_run: bool = False,
    progress: Callable[[int], None] = lambda size: None,
) -> Push:
    """Put packs into a repository of the Hub: one commit, or none if all is there already.

    Parameters
    ----------
    source : path
        A directory of packs as `dtscodec encode ... -o DIR` makes it, or one pack.
    repo : str
        `user/name`. It is made if it is not there. Packs of other tasks that it holds stay.
    base : str, optional
        The Hub's name of the base, `hf://user/repo[@revision]`, for packs that do not remember it.
    figures : mapping, optional
        By task, numbers about its quality for the page (see `dtscodec.hub.repository.read_figures`).
    revision : str, optional
        The branch; by default the main one.
    private : bool
        Whether a repository that is made is private.
    message : str, optional
        Of the commit.
    dry_run : bool
        Change nothing; say what would be.
    progress : callable
        Told the bytes of each pack that was checked.

    Raises
    ------
    ConfigError
        A base is not known, or packs that do not remember theirs differ in it, or there can be no repository of that
        name.
    BaseMismatchError
        The base lacks what a pack needs.
    OutputError
        The Hub does not take it; the repository is as it was.
    CheckpointError, PackNotFoundError, FormatError
        There are no packs, or one is damaged.
    """
    _check_name(repo)
    packs = local_packs(Path(source), figures or {})
    for pack in packs:
        progress(pack.listed.size)
    where = cast(Path, f"hf://{repo}" + (f"@{revision}" if revision else ""))
    with write_errors(where):
        there = _Remote.look(repo, revision)
        known = there.folder()
        folder = index_of(known, packs, base_of(packs, base, known))
        operations = _changes(there, known, folder, packs)
    unchanged = tuple(pack.task for pack in packs if pack.listed.file not in operations)
    sizes = {path: len(data) if isinstance(data, bytes) else data.stat().st_size for path, data in operations.items()}
    if dry_run or not operations:
        return Push(repo, sizes, unchanged)
    with write_errors(where):
        url = _commit(there, operations, revision, private, message or _message(packs, unchanged))
    forget()
    return Push(repo, sizes, unchanged, url)


def _check_name(repo: str) -> None:
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
        if "/" not in repo:
            raise ValueError("no user")
    except ValueError as error:
        raise ConfigError(f"{repo[:100]!r}: expected user/name as the Hub takes it, got: {error!s:.160}") from error


class _Remote:
    """A repository as it is: its commit, if it is there, and small files.

    A branch that is not there yet is what it will be made of, the main one.
    """

    def __init__(self, repo: str, commit: str | None, has_branch: bool = True) -> None:
        self.repo, self.commit, self.has_branch = repo, commit, has_branch

    @classmethod
    def look(cls, repo: str, revision: str | None) -> "_Remote":
        """Ask the Hub."""
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        try:
            return cls(repo, hub_api().repo_info(repo, revision=revision, timeout=WAIT_SECONDS).sha)
        except RevisionNotFoundError:
            return cls(repo, hub_api().repo_info(repo, timeout=WAIT_SECONDS).sha, has_branch=False)
        except RepositoryNotFoundError:
            return cls(repo, None, has_branch=revision is None)

    def file(self, path: str) -> bytes | None:
        """A file's content; None if there is no such file."""
        place = HubPlace(self.repo, self.commit, path) if self.commit else None
        return place.read_bytes() if place and place.is_file() else None

    def present(self, paths: list[str]) -> set[str]:
        """Which of these files are there."""
        if self.commit is None:
            return set()
        return {entry.path for entry in hub_api().get_paths_info(self.repo, paths, revision=self.commit)}

    def folder(self) -> Folder | None:
        """Its index."""
        data = self.file(INDEX)
        return None if data is None else parse_folder(data, f"hf://{self.repo}/{INDEX}")


def _changes(there: _Remote, known: Folder | None, folder: Folder, packs: list[LocalPack]) -> dict[str, bytes | Path]:
    """What differs from what is there, whose index is `known`."""
    before = known.packs if known else {}
    present = there.present([pack.listed.file for pack in packs])
    changes: dict[str, bytes | Path] = {
        pack.listed.file: pack.path
        for pack in packs
        if pack.task not in before or before[pack.task].id != pack.listed.id or pack.listed.file not in present
    }
    files = small_files(folder)
    if not is_ours(there.file(CONFIG)):
        del files[CONFIG]  # A model's own, without which it would not load.
    files[README] = card(there.repo, folder, there.file(README), known)
    return changes | {path: data for path, data in files.items() if there.file(path) != data}


def _commit(
    there: _Remote, operations: Mapping[str, bytes | Path], revision: str | None, private: bool, message: str
) -> str:
    from huggingface_hub import CommitOperationAdd

    api = hub_api()
    if there.commit is None:
        api.create_repo(there.repo, private=private, exist_ok=True)
    if not there.has_branch:
        api.create_branch(there.repo, branch=revision, revision=there.commit, exist_ok=True)
    with _quietly():
        done: Any = api.create_commit(
            there.repo,
            [CommitOperationAdd(path, data) for path, data in operations.items()],
            commit_message=message,
            revision=revision,
            parent_commit=there.commit,  # Somebody else's commit in between is refused, not overwritten.
        )
    return str(done.commit_url)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep the client from drawing bars of its own."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    was_off = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not was_off:
            enable_progress_bars()


def _message(packs: list[LocalPack], unchanged: tuple[str, ...]) -> str:
    tasks = [pack.task for pack in packs if pack.task not in unchanged]
    if not tasks:
        return "Update the index and the page"
    return f"Packs: {', '.join(tasks[:5])}" + (f" and {len(tasks) - 5} more" if len(tasks) > 5 else "")
