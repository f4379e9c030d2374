"""Which function answers which request."""

import re
from collections.abc import Callable
from urllib.parse import unquote

from tests.fakes.hub.store import Store
from tests.fakes.hub.wire import Refused, Request, Response

Endpoint = Callable[..., Response]
"""Called with the store, the request, and the parts of the path that its pattern names."""

_NAMED = {"repo": r"(?P<repo>[^/]+/[^/]+)", "rev": r"(?P<rev>[^/]+)", "path": r"(?P<path>.+)"}


class Routes:
    """Patterns of paths, in which {repo}, {rev} and {path} stand for the usual parts."""

    def __init__(self, *parts: "Routes") -> None:
        self._endpoints: list[tuple[str, re.Pattern[str], Endpoint]] = [each for p in parts for each in p._endpoints]

    def add(self, methods: str, pattern: str) -> Callable[[Endpoint], Endpoint]:
        for name, part in _NAMED.items():
            pattern = pattern.replace(f"{{{name}}}", part)

        def register(endpoint: Endpoint) -> Endpoint:
            self._endpoints.append((methods, re.compile(pattern), endpoint))
            return endpoint

        return register

    def answer(self, store: Store, request: Request) -> Response:
        """Only after matching is the path unquoted: a slash inside a branch's name separates nothing."""
        for methods, pattern, endpoint in self._endpoints:
            found = pattern.fullmatch(request.path)
            if found and request.method in methods.split():
                parts = {name: unquote(part) for name, part in found.groupdict().items() if part is not None}
                try:
                    with store.lock:
                        return endpoint(store, request, **parts)
                except Refused as refused:
                    return refused.response
        return Refused(404, None, f"no such endpoint: {request.method} {request.path}").response
