"""A headless Chromium, driven by its DevTools protocol over two pipes: no port, no library."""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from dtscodec.errors import BackendError, Remedy

NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-lcd-text",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)
_SECONDS = 60
_PAINTED = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
"""A promise that is fulfilled once the page is drawn at its new size; before, tables may still be blank."""

Message = dict[str, Any]


def find_browser() -> str | None:
    """Return the path of a browser, None if none is installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page of a browser, a context manager: the browser starts on entry, and is killed on exit.

    Raises
    ------
    BackendError
        No browser is installed, it does not start, or does not answer.
    """

    def __init__(self) -> None:
        program = find_browser()
        if program is None:
            raise BackendError(
                f"a picture: expected a browser, one of {', '.join(NAMES)}, got none",
                Remedy("install one (Debian: apt-get install chromium), or write a page that ends in .html"),
            )
        self._program = program
        self._unread = b""
        self._calls = 0
        self._session: str | None = None
        self.events: list[Message] = []

    def __enter__(self) -> "Browser":
        self._profile = tempfile.TemporaryDirectory(prefix="dtscodec-", ignore_cleanup_errors=True)
        self._start()
        try:
            # Open a page; later calls go to its session.
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
            self.call("Emulation.setScrollbarsHidden", hidden=True)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def call(self, method: str, **parameters: Any) -> Message:
        """Call a method of the protocol and return its result; events that arrive before it are appended to `events`.

        Parameters
        ----------
        method : str
            Such as ``"Page.navigate"``.
        **parameters
            Its parameters, as the protocol names them.
        """
        self._calls += 1
        message: Message = {"id": self._calls, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._send(json.dumps(message).encode() + b"\0")
        until = time.monotonic() + _SECONDS
        while (answer := self._receive(until)).get("id") != self._calls:
            self.events.append(answer)
        if "error" in answer:
            raise BackendError(f"{self._program}: expected {method} to work, got {answer['error'].get('message')!r}")
        result: Message = answer["result"]
        return result

    def show(self, url: str) -> None:
        """Load a page and wait for its load event."""
        self.events.clear()
        self.call("Page.navigate", url=url)
        until = time.monotonic() + _SECONDS
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._receive(until))

    def picture(self, width: int, scale: float) -> bytes:
        """Return the whole page as PNG.

        Parameters
        ----------
        width : int
            Width of the page in CSS pixels.
        scale : float
            Pixels of the picture per CSS pixel.
        """
        # Lay the page out at this width, measure its height, and make the window as high.
        self._resize(width, 600, scale)
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        self._resize(width, int(size["height"]), scale)
        self.call("Runtime.evaluate", expression=_PAINTED, awaitPromise=True)
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def _resize(self, width: int, height: int, scale: float) -> None:
        settings = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **settings)

    def _start(self) -> None:
        """Start the browser, which reads commands from descriptor 3 and answers on 4."""
        # Above 4, so that duplicating two of them to 3 and 4 does not close another.
        ours = [_high(end) for end in (*os.pipe(), *os.pipe())]
        commands, self._to, self._from, answers = ours
        flags = [*_FLAGS, f"--user-data-dir={self._profile.name}"]
        if os.geteuid() == 0:
            # Chromium's sandbox refuses to run as root. The page is ours, and runs no script.
            flags.append("--no-sandbox")
        actions = [(os.POSIX_SPAWN_OPEN, n, os.devnull, os.O_RDWR, 0) for n in range(3)]
        pipes = [(os.POSIX_SPAWN_DUP2, commands, 3), (os.POSIX_SPAWN_DUP2, answers, 4)]
        # A process group of its own, so that `_stop` also reaches child processes.
        self._process = os.posix_spawn(
            self._program, [self._program, *flags], os.environ, file_actions=[*actions, *pipes], setpgroup=0
        )
        # With the browser's ends closed here, reading ends when the browser does.
        os.close(commands)
        os.close(answers)

    def _stop(self) -> None:
        for end in (self._to, self._from):
            os.close(end)
        # The browser ends when its pipes are closed, but its child processes may not.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        self._profile.cleanup()

    def _send(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._to, data) :]
        except BrokenPipeError:
            raise self._silent() from None

    def _receive(self, until: float) -> Message:
        """Return the next message; BackendError after the time limit."""
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._from], [], [], max(0.0, until - time.monotonic()))
            data = os.read(self._from, 2**20) if ready else b""
            if not data:
                raise self._silent()
            self._unread += data
        text, _, self._unread = self._unread.partition(b"\0")
        message: Message = json.loads(text)
        return message

    def _silent(self) -> BackendError:
        return BackendError(f"{self._program}: expected an answer, got none", Remedy("write a page that ends in .html"))


def _high(descriptor: int) -> int:
    """Move a descriptor to a number above the browser's 3 and 4, closed in other processes."""
    other = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return other


def picture(page: str, width: int = 900, scale: float = 1) -> bytes:
    """Return a page as PNG, in light colours.

    Parameters
    ----------
    page : str
        HTML.
    width : int
        Width of the page in CSS pixels.
    scale : float
        Pixels of the picture per CSS pixel.

    Raises
    ------
    BackendError
        No browser is installed, it does not start, or does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="dtscodec-") as folder, Browser() as browser:
        path = Path(folder) / "report.html"
        path.write_text(page, "utf-8")
        browser.show(path.as_uri())
        return browser.picture(width, scale)
