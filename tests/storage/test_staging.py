"""Ranges of remote files: staging once by whoever is first, kept in a folder that never outlives its owner's work."""

import multiprocessing
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.checkpoint import Checkpoint
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.errors import CheckpointError, OutputError
from dtscodec.storage import remote_file
from dtscodec.storage.open_file import Access, staging_folder_for
from dtscodec.storage.staging import staging_folder
from tests.fakes.s3_server import LoopbackS3
from tests.storage.helpers import base_model, put

URL, NAME = "s3://models/tweets.safetensors", "layer.1.weight"
SIZE = 2**20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "kept").mkdir()
    return tmp_path / "kept"


def expected(models: Path, name: str = NAME) -> bytes:
    with open_checkpoint(models / "tweets.safetensors") as checkpoint:
        return checkpoint.read(name).tobytes()


def test_without_a_folder_each_read_transfers(models: Path, server: LoopbackS3) -> None:
    with open_checkpoint(URL) as checkpoint:
        server.reset()
        assert checkpoint.read(NAME).tobytes() == checkpoint.read(NAME).tobytes() == expected(models)
    assert server.sent == 2 * SIZE


def test_a_folder_makes_it_once_for_all_who_share_it(models: Path, server: LoopbackS3, folder: Path) -> None:
    with open_checkpoint(URL, Access(folder)) as one, open_checkpoint(URL, Access(folder)) as other:
        server.reset()
        assert one.read(NAME).tobytes() == one.read(NAME).tobytes() == other.read(NAME).tobytes() == expected(models)
    assert server.sent == SIZE


def read_in_a_process(folder: Path) -> bytes:
    with open_checkpoint(URL, Access(folder)) as checkpoint:
        return checkpoint.read(NAME).tobytes()


def test_threads_and_processes_at_the_same_time_transfer_once(models: Path, server: LoopbackS3, folder: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as processes, ThreadPoolExecutor(4) as threads:
        server.hook = lambda environ: time.sleep(0.05)
        pending = processes.map_async(read_in_a_process, [folder] * 4)
        found = [*threads.map(read_in_a_process, [folder] * 8), *pending.get()]
    assert set(found) == {expected(models)}
    assert server.sent - SIZE < 12 * 1000  # what headers take


def test_long_ranges_come_in_pieces(
    models: Path, server: LoopbackS3, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_file, "_PIECE_BYTES", 300_000)
    for staging in (None, folder):
        with open_checkpoint(URL, Access(staging)) as checkpoint:
            server.reset()
            assert checkpoint.read(NAME).tobytes() == expected(models)
        assert sum(request.startswith("GET") for request in server.requests) == 4


def test_a_damaged_file_in_the_folder_is_fetched_again(models: Path, server: LoopbackS3, folder: Path) -> None:
    with open_checkpoint(URL, Access(folder)) as checkpoint:
        checkpoint.read(NAME)
        for kept in folder.iterdir():
            kept.write_bytes(kept.read_bytes()[:-1])
        assert checkpoint.read(NAME).tobytes() == expected(models)


def test_a_machine_without_the_folder_reads_directly(models: Path, server: LoopbackS3, tmp_path: Path) -> None:
    with open_checkpoint(URL, Access(tmp_path / "elsewhere")) as checkpoint:
        assert checkpoint.read(NAME).tobytes() == expected(models)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_an_output_error(server: LoopbackS3, small_disk: Path) -> None:
    with open_checkpoint(URL, Access(small_disk)) as checkpoint, pytest.raises(OutputError, match="No space left"):
        checkpoint.read(NAME)


def test_a_file_that_was_replaced_is_not_read(models: Path, bucket: str, folder: Path) -> None:
    put(f"{bucket}/model.safetensors", (models / "tweets.safetensors").read_bytes())
    for staging in (None, folder):
        with open_checkpoint(f"{bucket}/model.safetensors", Access(staging)) as checkpoint:
            put(f"{bucket}/model.safetensors", (models / "base" / "a.safetensors").read_bytes())
            with pytest.raises(CheckpointError, match="replaced meanwhile"):
                checkpoint.read(NAME)
        put(f"{bucket}/model.safetensors", (models / "tweets.safetensors").read_bytes())


def test_another_content_has_another_signature(models: Path, bucket: str) -> None:
    signatures = set()
    for source in ("tweets.safetensors", "base/a.safetensors", "tweets.safetensors"):
        put(f"{bucket}/model.safetensors", (models / source).read_bytes())
        with open_checkpoint(f"{bucket}/model.safetensors") as checkpoint:
            signatures.add(checkpoint.signature("bias"))
    assert len(signatures) == 2


def test_a_remote_base_is_hashed_once(server: LoopbackS3) -> None:
    for _ in range(2):
        server.reset()
        with Base("s3://models/base") as base:
            base.leaf(NAME)
    assert server.sent < SIZE


# Prefetching


def settled(checkpoint: Checkpoint, server: LoopbackS3) -> None:
    """Wait for what goes on in the background."""
    deadline = time.monotonic() + 10
    while server.sent < SIZE:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("url", [URL, "s3://models/movie"])
def test_what_was_prefetched_is_not_transferred_again(models: Path, server: LoopbackS3, folder: Path, url: str) -> None:
    with open_checkpoint(url, Access(folder)) as checkpoint:
        server.reset()
        checkpoint.prefetch(NAME)
        settled(checkpoint, server)
        checkpoint.prefetch(NAME)
        with open_checkpoint(url.replace("s3://models", str(models))) as local:
            assert checkpoint.read(NAME).tobytes() == local.read(NAME).tobytes()
    assert server.sent == SIZE


def test_without_a_folder_nothing_is_prefetched(server: LoopbackS3) -> None:
    with open_checkpoint(URL) as checkpoint:
        server.reset()
        checkpoint.prefetch(NAME)
    assert server.requests == []


def test_a_failure_to_prefetch_is_told_by_the_read(server: LoopbackS3, folder: Path) -> None:
    with open_checkpoint(URL, Access(folder)) as checkpoint:
        server.hook = lambda environ: 403
        checkpoint.prefetch(NAME)
        with pytest.raises(CheckpointError, match="Forbidden"):
            checkpoint.read(NAME)


def test_closing_ends_prefetching(server: LoopbackS3, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_file, "_AHEAD", 1)
    with open_checkpoint(URL, Access(folder)) as checkpoint:
        server.hook = lambda environ: time.sleep(0.2)
        for name in checkpoint.specs:
            checkpoint.prefetch(name)
    count = len(server.requests)
    time.sleep(0.3)
    assert len(server.requests) == count
    with pytest.raises(CheckpointError, match="closed"):
        checkpoint.read("layer.2.weight")


def test_local_checkpoints_may_be_prefetched(models: Path, tmp_path: Path) -> None:
    for source in (models / "tweets.safetensors", models / "movie", base_model()):
        with open_checkpoint(source) as checkpoint:
            for name in checkpoint.specs:
                checkpoint.prefetch(name)
            assert checkpoint.read(NAME).size == SIZE


# The folder


def test_a_folder_is_made_beside_the_output_only_for_remote_sources(work: Path) -> None:
    with staging_folder_for(work / "out", "base", work, {}) as folder:
        assert folder is None
    with staging_folder_for(work / "out", "base", "s3://models/base") as folder:
        assert folder
        assert folder.parent == work
    with staging_folder_for(work / "missing" / "out", "s3://models/base") as folder:
        assert folder
        assert folder.parent == work / "temp"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_folder_goes_however_the_work_ends(tmp_path: Path, error: type[BaseException]) -> None:
    def work(ends: type[BaseException] | None) -> None:
        with staging_folder(tmp_path) as folder:
            (folder / "range").write_bytes(b"x")
            if ends:
                raise ends

    work(None)
    assert not list(tmp_path.iterdir())
    with pytest.raises(error):
        work(error)
    assert not list(tmp_path.iterdir())


OWNER = """
import sys
from pathlib import Path
from dtscodec.storage.staging import staging_folder
with staging_folder(Path(sys.argv[1])) as folder:
    (folder / "range").write_bytes(b"x")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killed,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as living,
    ):
        assert killed.stdout
        assert living.stdout
        left, held = Path(killed.stdout.readline().strip()), Path(living.stdout.readline().strip())
        killed.kill()
        killed.wait()
        assert left.is_dir()
        with staging_folder(tmp_path) as own:
            assert sorted(tmp_path.iterdir()) == sorted([held, own])
        living.communicate("")
    assert not list(tmp_path.iterdir())


def test_a_folder_is_its_owners_alone(tmp_path: Path) -> None:
    with staging_folder(tmp_path) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
