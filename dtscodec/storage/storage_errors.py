"""Failures of local storage, remote storage and the Hub as errors of one line with a remedy."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dtscodec.errors import CheckpointError, DtsError, OutputError, PackNotFoundError, Remedy
from dtscodec.files.output_file import OTHER_OUTPUT
from dtscodec.messages import one_line
from dtscodec.storage.paths import is_remote

_REMEDIES: tuple[tuple[type[Exception], Remedy], ...] = (
    (FileNotFoundError, Remedy("check the name")),
    (PermissionError, Remedy("check your credentials and rights")),
    (Exception, Remedy("check network, address and credentials, and try again")),
)
"""Remedies for failures of remote storage; the first that matches applies."""

_LOG_IN = "log in with 'hf auth login', or set HF_TOKEN"
_ONLINE = "try again without HF_HUB_OFFLINE"
_NETWORK = "check the network, and try again"


@contextmanager
def read_errors(path: Path, remedy: Remedy | None = None) -> Iterator[None]:
    """Turn failures to read a path into a `CheckpointError` with a remedy, by default one for the kind of failure."""
    with _errors_of(path, CheckpointError, "read", remedy):
        yield


@contextmanager
def pack_errors(path: Path) -> Iterator[None]:
    """Turn failures to read a pack into a `PackNotFoundError` with a remedy."""
    with _errors_of(path, PackNotFoundError, "read", None):
        yield


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn failures to write a path into an `OutputError` with a remedy."""
    with _errors_of(path, OutputError, "write", None if is_remote(path) else OTHER_OUTPUT):
        yield


@contextmanager
def _errors_of(path: Path, kind: type[DtsError], verb: str, remedy: Remedy | None) -> Iterator[None]:
    try:
        yield
    except DtsError:
        raise
    except Exception as e:  # Storage clients raise nearly any exception.
        if not isinstance(e, OSError) and not is_remote(path):
            raise
        why = one_line(e)
        explained = _explain_hub_error(e) if is_remote(path) else None
        if explained is not None:
            why, remedy = explained[0], remedy or explained[1]
        elif is_remote(path):
            remedy = remedy or next(usual for found, usual in _REMEDIES if isinstance(e, found))
        raise kind(f"{path}: expected to {verb} it, got '{why}'", remedy) from e


def _explain_hub_error(error: BaseException) -> tuple[str, Remedy] | None:
    """Return a short reason and a remedy for an error of the Hub's client; None for other errors."""
    from huggingface_hub import errors

    if isinstance(error, RuntimeError) and error.__cause__ is not None:  # The client wraps failures of uploads.
        return _explain_hub_error(error.__cause__)
    # Subclasses first: a GatedRepoError is also a RepositoryNotFoundError.
    of_kind: tuple[tuple[type[BaseException], str, str], ...] = (
        (errors.HFValidationError, "no name of a repository, which is user/name", "check the name"),
        (errors.GatedRepoError, "a gated repository", f"ask for access on its page, then {_LOG_IN}"),
        (errors.DisabledRepoError, "a repository that is disabled", "ask its owner"),
        (
            errors.RepositoryNotFoundError,
            "no such repository, or a private one",
            f"check the name; if private, or to be made, {_LOG_IN}",
        ),
        (errors.RevisionNotFoundError, "no such branch, tag or commit", "check what follows the @"),
        (errors.RemoteEntryNotFoundError, "no such file in the repository", "check the name"),
        (errors.LocalEntryNotFoundError, "no copy in the cache, and no Hub", _ONLINE if _is_offline() else _NETWORK),
        (errors.OfflineModeIsEnabled, "no copy in the cache, and HF_HUB_OFFLINE is set", _ONLINE),
    )
    for kind, reason, remedy in of_kind:
        if isinstance(error, kind):
            return reason, Remedy(remedy)
    if isinstance(error, errors.HfHubHTTPError):
        return _of_status(error)
    if isinstance(error, ValueError) and isinstance(error.__cause__, errors.BadRequestError):  # A page's metadata.
        return _line(error), Remedy("correct it, and try again")
    if isinstance(error, errors.HTTPError):  # type: ignore[attr-defined]
        return f"no answer from the Hub ({_line(error) or type(error).__name__})", Remedy(_NETWORK)
    return None


def _is_offline() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def _line(text: object) -> str:
    return " ".join(str(text).split())[:120]


def _of_status(error: Any) -> tuple[str, Remedy]:
    status = getattr(error.response, "status_code", 0)
    message = _line(error.server_message or "")
    reason = f"status {status}" + (f" ({message})" if message else "")
    if status in (401, 403):
        return reason, Remedy(f"this token may not do that: {_LOG_IN}")
    return reason, Remedy("try again" if status in (408, 409, 412, 429) or status >= 500 else "check the name")
