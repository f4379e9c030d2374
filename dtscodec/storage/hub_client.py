"""The client of the Hub, with a timeout for every request.

The client has one HTTP session for the whole process, without a timeout, which a library must not change for its
program. So each request names a timeout. For methods that take none, the session gets one during the call.
"""

import logging
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

NAME = "dtscodec"
"""User agent for the Hub."""

WAIT_SECONDS = 30.0
"""Timeout for answers of the Hub; the client itself has none."""

is_command = False
"""Whether this process is one of our commands, so that the client's session and log may be set up for it."""

_WITHOUT_TIMEOUT = ("get_paths_info", "create_repo", "create_branch", "create_commit")
"""Methods of the client that take no timeout."""

_RETRIES = 2
"""How often a request is repeated after the answer that the Hub is busy."""


def hub_api() -> Any:
    """Return the client, with our user agent and timeout."""
    from huggingface_hub import HfApi

    from dtscodec.version import __version__

    if is_command:
        _set_up()
    api = HfApi(library_name=NAME, library_version=__version__)
    for name in _WITHOUT_TIMEOUT:
        setattr(api, name, _in_time(getattr(api, name)))
    return api


def ask(url: str, **more: Any) -> Any:
    """Return the Hub's response to a GET request, with a timeout.

    Parameters
    ----------
    url : str
        The address.
    **more : Any
        Passed to the client's `http_backoff`; `headers` are added to ours.

    Raises
    ------
    Exception
        Errors of the client; see `dtscodec.storage.storage_errors`.
    """
    from huggingface_hub import hf_raise_for_status
    from huggingface_hub.utils import build_hf_headers, http_backoff  # type: ignore[attr-defined]

    api = hub_api()
    headers = build_hf_headers(token=api.token, library_name=NAME, library_version=api.library_version)
    headers |= more.pop("headers", {})
    response = http_backoff("GET", url, headers=headers, **{"timeout": WAIT_SECONDS, **more})
    hf_raise_for_status(response)
    return response


def ask_api(path: str) -> list[Any]:
    """Return all pages of an answer of the Hub's API about models. If the Hub cannot be reached, there is no retry.

    Parameters
    ----------
    path : str
        The part of the address after ``/api/models/``.
    """
    url, pages = f"{hub_api().endpoint}/api/models/{path}", []
    while url:
        response = ask(url, max_retries=_RETRIES, retry_on_exceptions=())
        pages.append(response.json())
        # The Hub links each page to the next.
        url = response.links.get("next", {}).get("url")
    return pages


def is_silence(error: Exception) -> bool:
    """Return whether an error means that the Hub is unreachable, failing, or disabled by HF_HUB_OFFLINE."""
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError):
        # Other statuses are answers, such as that a repository was deleted: the cache must not contradict them.
        return bool(error.response.status_code >= 500)
    return isinstance(error, (errors.HTTPError, errors.OfflineModeIsEnabled))  # type: ignore[attr-defined]


@cache
def _set_up() -> None:
    """Give all requests of a command a timeout, and silence the client's log of retries.

    That log has addresses, which may be signed; our own message has the reason. The factory is replaced because the
    client makes a new session after it has lost its connection.
    """
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    def in_time() -> Any:
        client = default_client_factory()
        client.timeout = WAIT_SECONDS
        return client

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    set_client_factory(in_time)


def _in_time(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method whose requests have our timeout, unless the program has set one for the session."""

    @wraps(method)
    def call(*arguments: Any, **more: Any) -> Any:
        from huggingface_hub import get_session

        client: Any = get_session()
        # The session is the program's: its own timeout is respected, and ours is set for this call only.
        lends = client.timeout.read is None
        before = client.timeout
        if lends:
            client.timeout = WAIT_SECONDS
        try:
            return method(*arguments, **more)
        finally:
            if lends:
                client.timeout = before

    return call
