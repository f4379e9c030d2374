"""Requests and responses as values, and what is refused, with the headers by which the client tells errors apart."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Request:
    """`origin` is the scheme and host that the client called, by which the Hub and its CDN are told apart."""

    method: str
    target: str
    headers: Message
    body: bytes
    origin: str

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    def query(self, name: str, default: str = "") -> str:
        return parse_qs(urlsplit(self.target).query).get(name, [default])[-1]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, list[str]]:
        return parse_qs(self.body.decode())

    @property
    def token(self) -> str | None:
        return self.headers.get("Authorization", "").removeprefix("Bearer ") or None


@dataclass(frozen=True)
class Response:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Refused(Exception):
    """`code` is what the client makes an exception of, `message` what it shows."""

    def __init__(self, status: int, code: str | None, message: str, **headers: str) -> None:
        super().__init__(message)
        codes = {} if code is None else {"X-Error-Code": code}
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        self.response = as_json({"error": message}, status, {"X-Error-Message": message, **codes, **more})


def as_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(
        status, json.dumps(value, default=str).encode(), {"Content-Type": "application/json", **(headers or {})}
    )


def ranged(data: bytes, asked: str | None, headers: Mapping[str, str]) -> Response:
    """The whole, or the one range that a header asks for. Several at once get the whole, as RFC 9110 lets."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", asked or "")
    if found is None or not any(found.groups()):
        return Response(200, data, {"Accept-Ranges": "bytes", **headers})
    first, last = found.groups()
    start = int(first) if first else max(len(data) - int(last), 0)
    stop = min(int(last) + 1, len(data)) if first and last else len(data)
    if start >= stop:
        return Response(416, b"", {"Content-Range": f"bytes */{len(data)}"})
    return Response(206, data[start:stop], {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}", **headers})
