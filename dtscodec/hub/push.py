"""Local packs -> a repository of the Hub, in one commit."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from dtscodec.errors import ConfigError, OutputError, Remedy
from dtscodec.hub.model_card import card
from dtscodec.hub.pack_bases import base_of
from dtscodec.hub.push_target import PushTarget, prepared_target
from dtscodec.hub.repository import CONFIG, README, LocalPack, index_of, is_ours, local_packs, small_files
from dtscodec.messages import listed
from dtscodec.progress import ProgressCallback, no_progress
from dtscodec.storage.hub_client import hub_api
from dtscodec.storage.hub_tree import forget
from dtscodec.storage.storage_errors import write_errors


@dataclass(frozen=True, slots=True)
class Push:
    """The changes of a push, planned or done.

    Parameters
    ----------
    repo : str
    files : dict
        Paths in the repository and the sizes of what is new there.
    unchanged : tuple of str
        Tasks whose packs are in the repository already.
    url : str or None
        Of the commit; None if nothing was, or is to be, committed.
    branch : str or None
        One that was, or is to be, made of the main one.
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
) -> Push:
    """Push packs to a repository of the Hub: one commit, or none if nothing changed.

    Parameters
    ----------
    source : path
        A directory of packs as `dtscodec.encode` writes it, or one pack.
    repo : str
        `user/name`. It is created if it does not exist. Packs of other tasks that it holds stay.
    base : str, optional
        The Hub's name of the base, `hf://user/repo[@revision]`, for packs that do not remember it.
    figures : mapping, optional
        By task, numbers about its quality for the page (see `dtscodec.hub.repository.read_figures`).
    revision : str, optional
        The branch; by default the main one. It is created from that if it does not exist.
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
        The Hub does not take it, or a pack changed meanwhile; the repository is as it was.
    CheckpointError, PackNotFoundError, FormatError
        There are no packs, or one is damaged.
    """
    _check_name(repo)
    packs = local_packs(Path(source), figures or {})
    for pack in packs:
        progress(pack.listed.size)
    where = cast(Path, f"hf://{repo}" + (f"@{revision}" if revision else ""))
    with write_errors(where):
        there = PushTarget.read(repo, revision)
        changes = _changes(there, packs, base)
        url = None
        if not dry_run and (changes or not there.has_branch):
            with prepared_target(there, private) as target:
                if target.commit != there.commit:  # Whatever has come there meanwhile stays.
                    changes = _changes(target, packs, base)
                url = _commit(target, changes, message or _message(packs, changes)) if changes else None
            forget()
    return Push(
        repo,
        {
            path: len(content) if isinstance(content, bytes) else content.listed.size
            for path, content in changes.items()
        },
        _unchanged(packs, changes),
        url,
        None if there.has_branch else revision,
    )


def _check_name(repo: str) -> None:
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
        if "/" not in repo:
            raise ValueError("no user")
    except ValueError as error:
        raise ConfigError(f"{repo[:100]!r}: expected user/name as the Hub takes it, got: {error!s:.160}") from error


def _changes(there: PushTarget, packs: list[LocalPack], base: str | None) -> dict[str, bytes | LocalPack]:
    """Return the files that differ from those in the repository."""
    known = there.folder()
    folder = index_of(known, packs, base_of(packs, base, known))
    before = known.packs if known else {}
    present = there.present([pack.listed.file for pack in packs])
    changes: dict[str, bytes | LocalPack] = {
        pack.listed.file: pack
        for pack in packs
        if pack.task not in before or before[pack.task].id != pack.listed.id or pack.listed.file not in present
    }
    files = small_files(folder)
    if not is_ours(there.file(CONFIG)):
        del files[CONFIG]  # A model's own, without which it would not load.
    files[README] = card(there.repo, folder, there.file(README), known)
    return changes | {path: data for path, data in files.items() if there.file(path) != data}


def _commit(there: PushTarget, changes: Mapping[str, bytes | LocalPack], message: str) -> str:
    with _quietly():
        done: Any = hub_api().create_commit(
            there.repo,
            [_addition(path, content) for path, content in changes.items()],
            commit_message=message,
            revision=there.branch,
            parent_commit=there.commit,  # Somebody else's commit in between is refused, not overwritten.
        )
    return str(done.commit_url)


def _addition(path: str, content: bytes | LocalPack) -> Any:
    from huggingface_hub import CommitOperationAdd

    if isinstance(content, bytes):
        return CommitOperationAdd(path, content)
    with suppress(OSError, ValueError):  # It may be gone.
        found = CommitOperationAdd(path, content.path)
        if found.upload_info.sha256.hex() == content.sha256:
            return found
    detail = "expected the pack that was checked, got another file or none"
    raise OutputError(f"{content.path}: {detail}", Remedy("push again once nothing writes there any more"))


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


def _unchanged(packs: list[LocalPack], changes: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(pack.task for pack in packs if pack.listed.file not in changes)


def _message(packs: list[LocalPack], changes: Mapping[str, object]) -> str:
    tasks = [pack.task for pack in packs if pack.listed.file in changes]
    if not tasks:
        return "Update the index and the page"
    return f"Packs: {listed(tasks, 5)}"
