"""Pushing local packs to a repository of the Hub, in one commit."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from dtscodec.errors import ConfigError, OutputError, Remedy
from dtscodec.hub.model_card import model_card_text
from dtscodec.hub.pack_bases import index_base
from dtscodec.hub.push_target import PushTarget, prepared_target
from dtscodec.hub.repository import CONFIG, README, LocalPack, is_ours, local_packs, small_files, updated_index
from dtscodec.messages import listed
from dtscodec.progress import ProgressCallback, no_progress
from dtscodec.storage.hub_client import hub_api
from dtscodec.storage.hub_tree import clear_listings
from dtscodec.storage.storage_errors import write_errors


@dataclass(frozen=True, slots=True)
class PushReport:
    """Changes of a push, planned or done.

    Parameters
    ----------
    repo : str
        `user/name`.
    files : dict
        New and changed files: path in the repository -> size in bytes.
    unchanged : tuple of str
        Tasks of packs that are in the repository already.
    url : str or None
        Address of the commit; None if there was none.
    branch : str or None
        Branch that the push creates; None if it exists.
    """

    repo: str
    files: dict[str, int]
    unchanged: tuple[str, ...]
    url: str | None = None
    branch: str | None = None


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
    progress: ProgressCallback = no_progress,
) -> PushReport:
    """Push packs to a repository of the Hub, in one commit; there is none if the repository has them already.

    Parameters
    ----------
    source : path
        A directory of packs as `dtscodec.encode` writes it, or one pack.
    repo : str
        `user/name`. It is created if it does not exist. Its packs of other tasks stay.
    base : str, optional
        Name on the Hub of the base of all packs, `hf://user/repo[@revision]`; by default the one that each pack
        records, else that of the repository's index.
    figures : mapping, optional
        Task -> figures about its quality for the model card; see `dtscodec.hub.repository.read_figures`.
    revision : str, optional
        The branch; by default the main branch, from which another one is created if it does not exist.
    private : bool
        Whether a repository that is created is private.
    message : str, optional
        Message of the commit.
    dry_run : bool
        Return the changes without making them.
    progress : callable
        Called with the bytes of each pack that was verified.

    Raises
    ------
    ConfigError
        A base is not known, packs that do not record theirs differ in it, or the repository's name is invalid.
    BaseMismatchError
        The base lacks tensors or rows that a pack needs.
    OutputError
        The Hub refuses the push, or a pack changed meanwhile. The repository is unchanged then.
    CheckpointError, PackNotFoundError, FormatError
        There are no packs, or one is damaged.
    """
    _check_name(repo)
    packs = local_packs(Path(source), figures or {})
    for pack in packs:
        progress(pack.listed.size)
    where = cast(Path, f"hf://{repo}" + (f"@{revision}" if revision else ""))
    with write_errors(where):
        # Compute the changes against one commit; `_commit` later insists on it.
        found = PushTarget.read(repo, revision)
        changes = _changes(found, packs, base)
        url = None
        # A branch that does not exist is created even without changes.
        if not dry_run and (changes or not found.has_branch):
            with prepared_target(found, private) as target:
                if target.commit != found.commit:  # Somebody else has committed meanwhile: build on that.
                    changes = _changes(target, packs, base)
                url = _commit(target, changes, message or _message(packs, changes)) if changes else None
            # Cached answers are from before the commit.
            clear_listings()
    return PushReport(
        repo,
        {
            path: len(content) if isinstance(content, bytes) else content.listed.size
            for path, content in changes.items()
        },
        _unchanged(packs, changes),
        url,
        None if found.has_branch else revision,
    )


def _check_name(repo: str) -> None:
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
        if "/" not in repo:
            raise ValueError("no user")
    except ValueError as error:
        raise ConfigError(f"{repo[:100]!r}: expected user/name as the Hub takes it, got: {error!s:.160}") from error


def _changes(target: PushTarget, packs: list[LocalPack], base: str | None) -> dict[str, bytes | LocalPack]:
    """Return the files that are new or differ from those in the repository: path -> content or pack."""
    known = target.index()
    index = updated_index(known, packs, index_base(packs, base, known))
    before = known.packs if known else {}
    present = target.present([pack.listed.file for pack in packs])
    # A pack is in place if the index lists its id and the file exists.
    changes: dict[str, bytes | LocalPack] = {
        pack.listed.file: pack
        for pack in packs
        if pack.task not in before or before[pack.task].id != pack.listed.id or pack.listed.file not in present
    }
    files = small_files(index)
    if not is_ours(target.file(CONFIG)):
        del files[CONFIG]  # It is a model's own configuration, which the model needs to load.
    files[README] = model_card_text(target.repo, index, target.file(README), known)
    return changes | {path: data for path, data in files.items() if target.file(path) != data}


def _commit(target: PushTarget, changes: Mapping[str, bytes | LocalPack], message: str) -> str:
    with _quietly():
        done: Any = hub_api().create_commit(
            target.repo,
            [_addition(path, content) for path, content in changes.items()],
            commit_message=message,
            revision=target.branch,
            parent_commit=target.commit,  # If somebody else commits meanwhile, the Hub refuses ours.
        )
    return str(done.commit_url)


def _addition(path: str, content: bytes | LocalPack) -> Any:
    from huggingface_hub import CommitOperationAdd

    if isinstance(content, bytes):
        return CommitOperationAdd(path, content)
    with suppress(OSError, ValueError):  # The file may have been deleted.
        found = CommitOperationAdd(path, content.path)
        # The client has hashed the file just now; it may have been replaced since it was verified.
        if found.upload_info.sha256.hex() == content.sha256:
            return found
    detail = "expected the pack that was checked, got another file or none"
    raise OutputError(f"{content.path}: {detail}", Remedy("push again when no other program writes it"))


@contextmanager
def _quietly() -> Iterator[None]:
    """Disable the client's own progress bars inside the block."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    was_off = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not was_off:
            enable_progress_bars()


def _unchanged(packs: list[LocalPack], changes: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(pack.task for pack in packs if pack.listed.file not in changes)


def _message(packs: list[LocalPack], changes: Mapping[str, object]) -> str:
    tasks = [pack.task for pack in packs if pack.listed.file in changes]
    if not tasks:
        return "Update the index and the page"
    return f"Packs: {listed(tasks, 5)}"
