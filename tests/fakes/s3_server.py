"""An S3 server on the loopback, which counts what it sends and fails on demand."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

Environ = dict[str, Any]
Hook = Callable[[Environ], int | None]
"""Called with every request; returns a status, such as 403, to answer with at once, or None."""


class LoopbackS3:
    """moto behind a counter: `sent` is the bytes of all bodies, `hook` is called before each request."""

    def __init__(self) -> None:
        self._app: Any = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, True, request_handler=_Quiet)
        self._lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.reset()

    def reset(self) -> None:
        self.sent = 0
        self.requests: list[str] = []
        self.hook: Hook = lambda environ: None

    @contextmanager
    def running(self) -> Iterator["LoopbackS3"]:
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def _answer(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ['QUERY_STRING']}")
        status = self.hook(environ)
        if status is not None:
            start_response(f"{status} no", [("Content-Length", "0")])
            return []
        return self._counted(self._app(environ, start_response), environ["REQUEST_METHOD"] == "HEAD")

    def _counted(self, body: Iterable[bytes], is_head: bool) -> Iterator[bytes]:
        for piece in body:
            with self._lock:
                self.sent += 0 if is_head else len(piece)
            yield piece


class _Quiet(MotoRequestHandler):
    def log_request(self, *_: Any) -> None:
        pass
