"""Whatever goes wrong with storage: one line that says where, why and what to do, and nothing is left anywhere."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dtscodec.storage import upload
from dtscodec.storage.paths import as_path, storage
from tests.cli.helpers import Cli
from tests.fakes.s3_server import Environ, LoopbackS3
from tests.storage.helpers import objects, put

COMMAND = ["encode", "s3://models/base", "s3://models/movie", "-o"]
UPLOADS = ("POST", "PUT")


@pytest.fixture
def anew(server: LoopbackS3) -> Iterator[None]:
    """File systems remember credentials and address for the life of the process; not so here."""
    kind = type(storage(as_path("s3://models"))[0])
    kind.clear_instance_cache()
    yield
    kind.clear_instance_cache()


@pytest.fixture
def pieces(work: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command whose pack is uploaded in three pieces."""
    monkeypatch.setattr(upload, "_PIECE_BYTES", 5 * 2**20)
    noise = torch.randint(256, (11 * 2**20,), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    save_file({"noise": noise}, work / "new.safetensors")
    save_file({"noise": 255 - noise}, work / "old.safetensors")
    return ["encode", "old.safetensors", "new.safetensors", "--raw", "*", "-o"]


def interrupt() -> None:
    """What Ctrl-C does, from the server's thread."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


@pytest.mark.parametrize(
    "source", ["s3://no-such-bucket/model", "s3://models/no-such-model", "s3://models/no.safetensors"]
)
def test_a_model_that_is_missing(cli: Cli, server: LoopbackS3, source: str) -> None:
    for pair in (source, "s3://models/movie"), ("s3://models/base", source):
        line = cli.fails("encode", *pair, "-o", "out")
        assert line == f"{source}: expected a checkpoint, got nothing of that name"


def test_a_shard_that_is_missing(cli: Cli, bucket: str) -> None:
    put(f"{bucket}/model.safetensors.index.json", b'{"weight_map": {"w": "a.safetensors"}}')
    assert cli.fails("encode", bucket, "s3://models/movie", "-o", "out").startswith(f"{bucket}/a.safetensors: ")


def test_wrong_credentials(cli: Cli, server: LoopbackS3) -> None:
    server.hook = lambda environ: 403
    line = cli.fails(*COMMAND, "out")
    assert line.startswith("s3://models/base: ")
    assert line.endswith("check your credentials and rights")


@pytest.mark.usefixtures("anew")
def test_no_credentials(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", "/nonexistent")
    assert "credentials" in cli.fails(*COMMAND, "out")


@pytest.mark.usefixtures("anew")
def test_no_server(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    line = cli.fails(*COMMAND, "out")
    assert line.startswith("s3://models/base: expected to read it, got 'Could not connect")
    assert "network" in line


@pytest.mark.parametrize("names", [["model.bin"], ["model.pt"], ["model/pytorch_model.bin"]])
def test_files_of_torchs_are_not_read_by_range(cli: Cli, bucket: str, names: list[str]) -> None:
    put(f"{bucket}/{names[0]}", b"PK")
    line = cli.fails("encode", f"{bucket}/{names[0].split('/')[0]}", "s3://models/movie", "-o", "out")
    assert line.startswith(f"{bucket}/{names[0]}: ")
    assert "download or convert" in line


def test_other_files_are_no_checkpoints(cli: Cli, bucket: str) -> None:
    put(f"{bucket}/model", b"PK\3\4 and so on")
    assert "expected a header" in cli.fails("encode", f"{bucket}/model", "s3://models/movie", "-o", "out")


def remove(client: Any, data: bytes) -> None:
    client.call_s3("delete_object", Bucket="own", Key="tweets.safetensors")


def cut_off(client: Any, data: bytes) -> None:
    client.call_s3("put_object", Bucket="own", Key="tweets.safetensors", Body=data[:-1_500_000])


def replace(client: Any, data: bytes) -> None:
    client.call_s3("put_object", Bucket="own", Key="tweets.safetensors", Body=data[:-1] + b"\0")


@pytest.mark.parametrize("change", [remove, cut_off, replace])
def test_a_model_that_changes_while_it_is_read(
    cli: Cli, models: Path, server: LoopbackS3, bucket: str, change: Callable[[Any, bytes], None]
) -> None:
    url, data = f"{bucket}/tweets.safetensors", (models / "tweets.safetensors").read_bytes()
    put(url, data)
    client = storage(as_path(bucket))[0]
    ranges: list[str] = []

    def changing(environ: Environ) -> None:
        if environ["PATH_INFO"].endswith("tweets.safetensors") and environ["REQUEST_METHOD"] == "GET":
            ranges.append(environ["HTTP_RANGE"])
            if len(ranges) == 4:  # Two are of the header.
                change(client, data)

    server.hook = changing
    line = cli.is_cut_off("encode", "s3://models/base", url, "-o", "out")
    assert line.startswith(f"{url}: expected ")
    assert ("replaced meanwhile" in line) == (change is not remove)


def test_an_output_that_exists_is_refused_before_any_work(cli: Cli, server: LoopbackS3, bucket: str) -> None:
    put(f"{bucket}/out", b"mine")
    server.reset()
    line = cli.fails(*COMMAND, f"{bucket}/out")
    assert line.startswith(f"{bucket}/out: ")
    assert "--force" in line
    assert not any("GET /models" in request for request in server.requests)
    assert objects(bucket) == {"out": b"mine"}
    cli(*COMMAND, f"{bucket}/out", "--force")
    assert objects(bucket)["out"] != b"mine"


def test_an_output_that_appears_meanwhile_is_not_replaced(
    cli: Cli, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = upload._send

    def late(*details: Any) -> None:
        put(f"{bucket}/out", b"mine")
        send(*details)

    monkeypatch.setattr(upload, "_send", late)
    assert "--force" in cli.is_cut_off(*COMMAND, f"{bucket}/out")
    assert objects(bucket) == {"out": b"mine"}


def test_an_output_that_is_the_input_is_refused(cli: Cli, models: Path, bucket: str) -> None:
    url, data = f"{bucket}/tweets.safetensors", (models / "tweets.safetensors").read_bytes()
    put(url, data)
    assert "got the input" in cli.fails("encode", "s3://models/base", url, "-o", url, "--force")
    assert objects(bucket) == {"tweets.safetensors": data}


@pytest.mark.parametrize("out", ["s3://no-such-bucket/out", "s3://no-such-bucket/out/", "s3://no-such-bucket"])
def test_an_output_in_no_bucket_is_refused_before_any_work(cli: Cli, server: LoopbackS3, out: str) -> None:
    line = cli.fails(*COMMAND, out)
    assert "expected the bucket s3://no-such-bucket/, got none" in line
    assert not any("GET /models" in request for request in server.requests)


@pytest.mark.parametrize("at", [1, 2, 4, 5])
def test_an_upload_that_fails_leaves_nothing(
    cli: Cli, server: LoopbackS3, bucket: str, pieces: list[str], at: int
) -> None:
    seen: list[str] = []

    def failing(environ: Environ) -> int | None:
        seen.extend(["one"] if environ["REQUEST_METHOD"] in UPLOADS and len(seen) < at else [])
        return 403 if environ["REQUEST_METHOD"] in UPLOADS and len(seen) == at else None

    server.hook = failing
    line = cli.is_cut_off(*pieces, f"{bucket}/out")
    assert line == f"{bucket}/out: expected to write it, got 'Forbidden'; check your credentials and rights"
    server.reset()
    assert objects(bucket) == {}


@pytest.mark.parametrize("at", [1, 2, 4])
def test_ctrl_c_during_an_upload_leaves_nothing(
    cli: Cli, server: LoopbackS3, bucket: str, pieces: list[str], at: int
) -> None:
    seen: list[str] = []

    def interrupting(environ: Environ) -> None:
        seen.extend([""] if environ["REQUEST_METHOD"] in UPLOADS else [])
        if len(seen) == at:
            seen.append("")
            interrupt()

    server.hook = interrupting
    assert cli.is_cut_off(*pieces, f"{bucket}/out") == "interrupted"
    server.reset()
    assert objects(bucket) == {}


@pytest.mark.parametrize("at", [3, 6, 9])
def test_ctrl_c_while_tensors_are_fetched_leaves_nothing(cli: Cli, server: LoopbackS3, bucket: str, at: int) -> None:
    seen: list[str] = []

    def interrupting(environ: Environ) -> None:
        seen.append("")
        if "HTTP_RANGE" in environ and len(seen) >= at:
            server.reset()
            interrupt()

    server.hook = interrupting
    assert cli.fails(*COMMAND, f"{bucket}/out").startswith("interrupted")
    assert objects(bucket) == {}


@pytest.mark.parametrize(
    ("url", "missing", "extra"),
    [
        ("s3://b/model", "upath", "dtscodec[s3]"),
        ("s3://b/model", "s3fs", "dtscodec[s3]"),
        ("gs://b/model", "gcsfs", "dtscodec[gs]"),
        ("abfs://b/model", "adlfs", "dtscodec[remote]"),
    ],
)
def test_a_package_that_is_missing(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, url: str, missing: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)  # Else it is not looked for.
    for command in ([url, "s3://models/movie", "-o", "out"], ["base", "movie", "-o", url]):
        line = cli.fails("encode", *command)
        assert line.startswith(f"{url}: ")
        assert f"pip install '{extra}'" in line


def test_a_scheme_that_nobody_knows(cli: Cli) -> None:
    assert cli.fails("encode", "foo://b/model", "movie", "-o", "out").startswith("foo://b/model: ")
