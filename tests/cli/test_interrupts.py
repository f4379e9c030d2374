"""Ctrl-C and termination in the middle of work: one line, exit code 1, nothing left behind."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dtscodec.cli.progress import progress_bar
from tests.cli.helpers import PACK, Cli, snapshot

LINE = "interrupted; no partial output is left"
COMMANDS = [
    ["encode", "base", "movie", "-o", "out"],
    ["encode", "base", "movie", "-o", "out/"],
    ["encode", "base", "movie", "--force"],
    ["encode", "base", "movie", "-o", "out", "--workers", "2"],
    ["decode", PACK, "--base", "base", "-o", "out.safetensors"],
    ["decode", PACK, "--base", "base", "-o", "out.bin"],
    ["decode", PACK, "--base", "base", "-o", "out"],
    ["decode", PACK, "--base", "base", "-o", "out", "--shard-size", "4kB"],
    ["compare", PACK, "movie", "--base", "base"],
    ["verify", PACK],
]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [1, 5])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_signal_in_the_middle_leaves_nothing(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, command: list[str], at: int, number: int
) -> None:
    at = 1 if command[0] == "verify" else at  # of a small pack there is one block to tell of

    @contextlib.contextmanager
    def signalling(label: str, total: int) -> Iterator[Callable[[int], None]]:
        calls = []

        def told(count: int) -> None:
            calls.append(count)
            if len(calls) == at:
                signal.raise_signal(number)

        yield told

    monkeypatch.setattr(f"dtscodec.cli.{command[0]}.progress_bar", signalling)
    assert cli.fails(*command) == LINE


def test_a_replaced_output_stays_as_it_was(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for out in ("out", "out.safetensors", "out.bin"):
        cli("decode", PACK, "--base", "base", "-o", out)
    for out in ("out", "out.safetensors", "out.bin"):
        with monkeypatch.context() as patch:
            patch.setattr("dtscodec.codec.decode.Decoded.check_base", lambda self: signal.raise_signal(signal.SIGINT))
            assert cli.fails("decode", PACK, "--base", "base", "-o", out, "--force") == LINE


def test_packs_that_are_done_stay(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def signalling(label: str, total: int) -> contextlib.AbstractContextManager[Callable[[int], None]]:
        if label == "tweets":
            signal.raise_signal(signal.SIGINT)
        return progress_bar(label, total)

    monkeypatch.setattr("dtscodec.cli.encode.progress_bar", signalling)
    code, out, err = cli.run("encode", "base", "movie", "tweets", "-o", "out")
    assert (code, out.split(":")[0], err) == (1, "movie", f"dtscodec: {LINE}\n")
    assert sorted(snapshot(Path("out"))) == ["dtscodec.json", "packs", "packs/movie.safetensors"]
    cli("verify", "out/packs/movie.safetensors", "--base", "base")


STALLING = """
import contextlib, sys, time
from dtscodec.cli import decode, encode, main
@contextlib.contextmanager
def stalling(label, total):
    def told(count):
        print("working", flush=True)
        time.sleep(60)
    yield told
decode.progress_bar = encode.progress_bar = stalling
sys.exit(main.main(sys.argv[1:]))
"""


def interrupted(command: list[str], number: int, when: Callable[["subprocess.Popen[str]"], None]) -> None:
    """Start a process, signal it in the middle of its work, and check how it ends."""
    before = snapshot(Path())
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        when(process)
        assert any(path.name.startswith(".dtscodec-") for path in Path().iterdir())
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, f"dtscodec: {LINE}\n")
    assert snapshot(Path()) == before


def until_working(process: "subprocess.Popen[str]") -> None:
    assert process.stdout
    assert process.stdout.readline() == "working\n"


def until_a_temporary_appears(process: "subprocess.Popen[str]") -> None:
    while not any(path.name.startswith(".dtscodec-") for path in Path().iterdir()):
        assert process.poll() is None
        time.sleep(0.01)


@pytest.mark.parametrize("command", [COMMANDS[2], COMMANDS[3], COMMANDS[4]], ids=" ".join)
@pytest.mark.usefixtures("work")
def test_ctrl_c_ends_a_process(command: list[str]) -> None:
    interrupted([sys.executable, "-c", STALLING, *command], signal.SIGINT, until_working)


@pytest.mark.usefixtures("work")
def test_termination_ends_a_process() -> None:
    interrupted([sys.executable, "-c", STALLING, *COMMANDS[6]], signal.SIGTERM, until_working)


def long_encode(*more: str) -> list[str]:
    """A command that takes some seconds."""
    base = {f"layer.{i}.weight": torch.randn(400, 400) for i in range(40)}
    save_file(base, "b.safetensors")
    save_file({name: tensor + torch.randn(400, 400) for name, tensor in base.items()}, "f.safetensors")
    return [sys.executable, "-m", "dtscodec", "encode", "b.safetensors", "f.safetensors", "-o", "out", *more]


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.usefixtures("work")
def test_ctrl_c_in_the_middle_of_a_long_encode(workers: str) -> None:
    interrupted(long_encode("--workers", workers), signal.SIGINT, until_a_temporary_appears)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.usefixtures("work")
def test_workers_do_not_outlive_an_encode_that_is_killed() -> None:
    with subprocess.Popen(long_encode("--workers", "2"), stderr=subprocess.PIPE) as process:
        while len(workers := children(process.pid)) < 3:  # One of them keeps track of semaphores.
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(1)
        process.kill()
    deadline = time.monotonic() + 30
    while any(map(is_running, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_handler_of_termination_is_put_back(cli: Cli) -> None:
    before = signal.getsignal(signal.SIGTERM)
    cli("info", PACK)
    assert signal.getsignal(signal.SIGTERM) == before
