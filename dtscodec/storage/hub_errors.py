"""Exceptions of the Hub's client, each explained by a reason and a remedy."""

from typing import Any

from dtscodec.errors import Remedy

LOG_IN = "log in with 'hf auth login', or set HF_TOKEN"
ONLINE = "try again without HF_HUB_OFFLINE"
NETWORK = "check the network, and try again"


def explain_hub_error(error: BaseException) -> tuple[str, Remedy] | None:
    """Return a reason of a few words and a remedy; None if the error is not one of the Hub's client."""
    from huggingface_hub import errors

    if isinstance(error, RuntimeError) and error.__cause__ is not None:  # Failures of uploads are wrapped so.
        return explain_hub_error(error.__cause__)
    of_kind: tuple[tuple[type[BaseException], str, str], ...] = (
        (errors.HFValidationError, "no name of a repository, which is user/name", "check the name"),
        (errors.GatedRepoError, "a gated repository", f"ask for access on its page, then {LOG_IN}"),
        (errors.DisabledRepoError, "a repository that is disabled", "ask its owner"),
        (
            errors.RepositoryNotFoundError,
            "no such repository, or a private one",
            f"check the name; if private, or to be made, {LOG_IN}",
        ),
        (errors.RevisionNotFoundError, "no such branch, tag or commit", "check what follows the @"),
        (errors.RemoteEntryNotFoundError, "no such file in the repository", "check the name"),
        (errors.LocalEntryNotFoundError, "no copy in the cache, and no Hub", ONLINE if _is_offline() else NETWORK),
        (errors.OfflineModeIsEnabled, "no copy in the cache, and HF_HUB_OFFLINE is set", ONLINE),
    )
    for kind, reason, remedy in of_kind:
        if isinstance(error, kind):
            return reason, Remedy(remedy)
    if isinstance(error, errors.HfHubHTTPError):
        return _of_status(error)
    if isinstance(error, ValueError) and isinstance(error.__cause__, errors.BadRequestError):  # Of a page's metadata.
        return _line(error), Remedy("mend it, and try again")
    if isinstance(error, errors.HTTPError):  # type: ignore[attr-defined]
        return f"no answer from the Hub ({_line(error) or type(error).__name__})", Remedy(NETWORK)
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
        return reason, Remedy(f"this token may not do that: {LOG_IN}")
    return reason, Remedy("try again" if status in (408, 409, 412, 429) or status >= 500 else "check the name")
