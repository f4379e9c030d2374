"""The client of the Hub, and questions to the Hub that do not wait for ever.

The client has one HTTP client for the whole process, without a timeout, which in a program is not ours to change. So
each question names its own; calls that cannot lend that client one, and give it back after.
"""

import logging
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

NAME = "dtscodec"
"""User agent for the Hub."""

WAIT_SECONDS = 30.0
"""How long we wait for an answer of the Hub; the client itself would for ever."""

is_command = False
"""Whether this process is a command of ours, whose client is ours to set up."""

_WITHOUT_TIMEOUT = ("get_paths_info", "create_repo", "create_branch", "create_commit")
"""Methods of the client that take none."""

_TRIES_AGAIN = 2
"""Seconds to wait after an answer that the Hub is busy."""


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
    """Return the Hub's answer to a GET, with a timeout; `more` is for the client's `http_backoff`.

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
    """Return all pages of an answer of the Hub's API about models. A Hub that was out of reach is not asked again."""
    url, pages = f"{hub_api().endpoint}/api/models/{path}", []
    while url:
        response = ask(url, max_retries=_TRIES_AGAIN, retry_on_exceptions=())
        pages.append(response.json())
        url = response.links.get("next", {}).get("url")
    return pages


def is_silence(error: Exception) -> bool:
    """Whether the Hub gave no answer: it cannot be reached, is broken, or is not to be asked (HF_HUB_OFFLINE)."""
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError):
        return bool(error.response.status_code >= 500)
    return isinstance(error, (errors.HTTPError, errors.OfflineModeIsEnabled))  # type: ignore[attr-defined]


@cache
def _set_up() -> None:
    """Let all requests of a command end, and the client's log of each try, with addresses that may be signed, be still.

    Our own line says what matters. The factory is stored where a client is made again after it lost its connection.
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
    """A method whose requests have our timeout, if the program gave its client none."""

    @wraps(method)
    def call(*arguments: Any, **more: Any) -> Any:
        from huggingface_hub import get_session

        client: Any = get_session()
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
