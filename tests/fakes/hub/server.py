"""A Hugging Face Hub on the loopback, for the real client: it logs what it is asked, and fails as it is told."""

import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.fakes.hub import large_files, reading, writing
from tests.fakes.hub.routes import Routes
from tests.fakes.hub.store import Store
from tests.fakes.hub.wire import Refused, Request, Response


@dataclass
class Logged:
    """A request, from when it comes; `status` and `sent`, the bytes of the body, from when it is answered."""

    method: str
    path: str
    range: str | None
    status: int = 0
    sent: int = 0


@dataclass
class Fault:
    """What comes in the way of the next requests, `times` of them, that match."""

    pattern: str = ""
    times: int = 0
    status: int | None = None
    cut: int | None = None
    close: bool = False
    wait: float = 0.0


class LoopbackHub(Store):
    """A store that is served on 127.0.0.1, and under the name of localhost as the CDN of its large files."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Logged] = []
        self.stopping = threading.Event()
        self._faults: list[Fault] = []
        self._server = _Server(self)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator["LoopbackHub"]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self.stopping.set()
            self._server.shutdown()
            self._server.close()
            thread.join()
            if self._server.errors:
                raise self._server.errors[0]

    def fail(
        self,
        pattern: str,
        times: int = 1,
        *,
        status: int | None = None,
        cut: int | None = None,
        close: bool = False,
        wait: float = 0.0,
    ) -> None:
        """Let the next requests fail whose method and path, such as "GET /me/x/resolve/", the pattern is found in.

        `status`: answered with it, nothing is done. `close`: the connection is closed, nothing is done. `cut`: all is
        done, but after that many bytes of the body the connection is closed. `wait`: seconds before that happens, or
        before the request is answered as ever.
        """
        with self.lock:
            self._faults.append(Fault(pattern, times, status, cut, close, wait))

    def log(self, request: Request) -> Logged:
        logged = Logged(request.method, request.target, request.headers.get("Range"))
        with self.lock:
            self.requests.append(logged)
        return logged

    def fault(self, request: Request) -> Fault:
        with self.lock:
            for fault in self._faults:
                if fault.times > 0 and re.search(fault.pattern, f"{request.method} {request.target}"):
                    fault.times -= 1
                    return fault
        return Fault()

    def answer(self, request: Request) -> Response:
        """What is asked of the CDN, only the CDN answers."""
        is_cdn = request.path.startswith("/cdn/")
        if is_cdn != request.origin.startswith("http://localhost"):
            return Refused(421, None, f"{request.path} is not on {request.origin}").response
        return _ROUTES.answer(self, request)


_ROUTES = Routes(reading.routes, writing.routes, large_files.routes)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # Headers and body in one piece: two would wait for each other's acknowledgement.
    server: "_Server"

    def handle_any(self) -> None:
        hub = self.server.hub
        origin = f"http://{self.headers['Host']}"
        request = Request(self.command, self.path, self.headers, self._body(), origin)
        logged, fault = hub.log(request), hub.fault(request)
        if fault.cut is None:
            hub.stopping.wait(fault.wait)
        if fault.close:
            self.close_connection = True
            return
        response = hub.answer(request) if fault.status is None else Refused(fault.status, None, "told to fail").response
        body = b"" if self.command == "HEAD" else response.body[: fault.cut]
        logged.status, logged.sent = response.status, len(body)
        self._send(response, body)
        if fault.cut is not None:
            self.wfile.flush()
            hub.stopping.wait(fault.wait)
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def _send(self, response: Response, body: bytes) -> None:
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            return b"".join(self._chunks())
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def log_message(self, *_: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    """Its threads end when it is closed, although clients keep their connections open."""

    daemon_threads = False

    def __init__(self, hub: LoopbackHub) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub
        self.errors: list[BaseException] = []
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def close(self) -> None:
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # The client was faster.
                continue
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that went away are no error; anything else is one of this server, and shall not go unseen."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError):
            self.errors.append(error)
