"""An S3 server of our own on the loopback, which counts what it sends and fails when it is told to."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from safetensors.torch import save_file
from werkzeug.serving import make_server

from dtscodec.storage.paths import as_path, storage
from tests.cli.helpers import Tensors

Environ = dict[str, Any]
Hook = Callable[[Environ], int | None]
"""Told of every request; a status, such as 403, to answer with at once."""


class Server:
    """moto behind a counter. `sent` are the bytes of all bodies; `hook` is asked before each request."""

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
    def running(self) -> Iterator["Server"]:
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


def put(url: str, data: bytes) -> None:
    as_path(url).write_bytes(data)


def objects(bucket: str) -> dict[str, bytes]:
    """All that a bucket holds, uploads that were begun included."""
    files, name = storage(as_path(bucket))
    begun = files.call_s3("list_multipart_uploads", Bucket=name.rstrip("/")).get("Uploads", [])
    found = {path.removeprefix(name): files.cat_file(path) for path in files.find(name)}
    return found | {f"upload of {upload['Key']}": b"" for upload in begun}


def base_model() -> Tensors:
    """Four tensors, 3 MB."""
    generator = torch.Generator().manual_seed(3)
    layers: Tensors = {f"layer.{i}.weight": torch.randn(512, 512, generator=generator) for i in range(3)}
    return layers | {"bias": torch.randn(512, generator=generator)}


def fine_model(seed: int) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    fine = base_model()
    for name in list(fine)[1:]:
        fine[name] += 0.02 * torch.randn(fine[name].shape, generator=generator)
    return fine


def save_sharded(directory: Any, tensors: Tensors) -> None:
    """Two shards and their index."""
    import json

    directory.mkdir()
    names = sorted(tensors)
    shards = {"a.safetensors": names[:3], "b.safetensors": names[3:]}
    for shard, held in shards.items():
        save_file({name: tensors[name] for name in held}, directory / shard)
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
