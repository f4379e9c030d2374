import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs  # type: ignore[import-untyped]
from safetensors.torch import save_file

from dtscodec.storage.paths import as_path, storage
from tests.cli.helpers import Cli
from tests.fakes.s3_server import LoopbackS3
from tests.storage.helpers import base_model, fine_model, save_sharded


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a fine-tune in shards with configuration and tokenizer files, and another one in one file."""
    root = tmp_path_factory.mktemp("models")
    for name, tensors in (("base", base_model()), ("movie", fine_model(1))):
        save_sharded(root / name, tensors)
        (root / name / "config.json").write_text(json.dumps({"model_type": "tiny", "task": name}))
        (root / name / "vocab.txt").write_text("a\nb\n")
        (root / name / "1_Pooling").mkdir()
        (root / name / "1_Pooling" / "config.json").write_text(json.dumps({"pooling": name}))
    save_file(fine_model(2), root / "tweets.safetensors")
    return root


@pytest.fixture(scope="session")
def started(models: Path) -> Iterator[LoopbackS3]:
    """The server, with the models in a bucket of theirs."""
    settings = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with LoopbackS3().running() as server, pytest.MonkeyPatch.context() as patch:
        for key, value in {**settings, "AWS_ENDPOINT_URL": server.url}.items():
            patch.setenv(key, value)
        s3fs.S3FileSystem.clear_instance_cache()  # Whoever asked before knew no credentials.
        files, _ = storage(as_path("s3://models"))
        files.mkdir("models")
        files.put(f"{models}/", "models/", recursive=True)
        yield server


@pytest.fixture
def server(started: LoopbackS3) -> Iterator[LoopbackS3]:
    started.reset()
    yield started
    started.reset()


@pytest.fixture
def bucket(server: LoopbackS3) -> Iterator[str]:
    """An empty bucket of one's own."""
    files, _ = storage(as_path("s3://own"))
    files.mkdir("own")
    yield "s3://own"
    server.reset()
    files.rm("own", recursive=True)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, in which temporary files lie, too."""
    (tmp_path / "temp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", f"{tmp_path}/temp")
    monkeypatch.setitem(os.environ, "TMPDIR", f"{tmp_path}/temp")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(work: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys, work)
