"""Ctrl-C and termination in the middle of work: one line, exit code 1, nothing left behind."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dtscodec.cli.console import progress_bar
from dtscodec.encoding.journal import Journal
from tests.cli.helpers import PACK, Cli, how_to_resume, snapshot

pytestmark = pytest.mark.slow

LINE = "interrupted; no partial output is left"
ENCODES = [
    (["-o", "out"], "out.part", "out"),
    (["-o", "out/"], "out/dtscodec.part", "out/packs/movie.safetensors"),
    (["--force"], "movie.dts.safetensors.part", "movie.dts.safetensors"),
    (["-o", "out", "--workers", "2"], "out.part", "out"),
]
"""How an encode is called, its part file and its pack."""
COMMANDS = [
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
    monkeypatch.setattr(f"dtscodec.cli.{command[0]}.progress_bar", signalling(number, at))
    assert cli.fails(*command) == LINE


def signalling(number: int, at: int) -> Callable[[str, int], contextlib.AbstractContextManager[Callable[[int], None]]]:
    """A progress bar that raises a signal when it is told of something for the so-manyeth time."""

    @contextlib.contextmanager
    def bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
        calls = []

        def told(count: int) -> None:
            calls.append(count)
            if len(calls) == at:
                signal.raise_signal(number)

        yield told

    return bar


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [1, 5, 12])
@pytest.mark.parametrize(("more", "part", "pack"), ENCODES)
def test_an_encode_that_is_interrupted_keeps_what_is_finished_and_goes_on(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, more: list[str], part: str, pack: str, at: int, number: int
) -> None:
    cli("encode", "base", "movie", "-o", "undisturbed")
    command, before = ["encode", "base", "movie", *more], snapshot(Path())
    with monkeypatch.context() as patch:
        patch.setattr("dtscodec.cli.encode.progress_bar", signalling(number, at))
        code, out, err = cli.run(*command)
    assert (code, out) == (1, "")
    assert err == f"dtscodec: interrupted; {how_to_resume(part)}\n"
    left = {name: content for name, content in snapshot(Path()).items() if content is not None and name != part}
    assert left == {name: content for name, content in before.items() if content is not None}
    code, out, err = cli.run(*command)
    assert (code, err) == (0, f"dtscodec: {at} results of an earlier run in {part}\n")
    assert Path(pack).read_bytes() == Path("undisturbed").read_bytes()
    assert not Path(part).exists()


def test_a_replaced_output_stays_as_it_was(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for out in ("out", "out.safetensors", "out.bin"):
        cli("decode", PACK, "--base", "base", "-o", out)
    for out in ("out", "out.safetensors", "out.bin"):
        with monkeypatch.context() as patch:
            patch.setattr(
                "dtscodec.decoding.decode.Decoded.check_base", lambda self: signal.raise_signal(signal.SIGINT)
            )
            assert cli.fails("decode", PACK, "--base", "base", "-o", out, "--force") == LINE


def test_packs_that_are_done_stay(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def signalling(label: str, total: int) -> contextlib.AbstractContextManager[Callable[[int], None]]:
        if label == "tweets":
            signal.raise_signal(signal.SIGINT)
        return progress_bar(label, total)

    monkeypatch.setattr("dtscodec.cli.encode.progress_bar", signalling)
    code, out, err = cli.run("encode", "base", "movie", "tweets", "-o", "out")
    assert (code, out.split(":")[0], err) == (
        1,
        "movie",
        f"dtscodec: interrupted; {how_to_resume('out/dtscodec.part')}\n",
    )
    assert sorted(snapshot(Path("out"))) == ["dtscodec.json", "dtscodec.part", "packs", "packs/movie.safetensors"]
    cli("verify", "out/packs/movie.safetensors", "--base", "base")


def test_the_same_command_goes_on_with_the_packs_that_are_missing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["encode", "base", "movie", "tweets", "-o"]
    cli(*command, "undisturbed")
    with monkeypatch.context() as patch:
        patch.setattr("dtscodec.cli.encode.progress_bar", signalling_at("tweets"))
        assert cli.run(*command, "out")[0] == 1
    movie = Path("out/packs/movie.safetensors").stat()
    code, out, _ = cli.run(*command, "out")
    assert (code, list(dict.fromkeys(line.split(":")[0] for line in out.splitlines()))) == (0, ["movie", "tweets"])
    assert Path("out/packs/movie.safetensors").stat().st_mtime_ns == movie.st_mtime_ns
    assert snapshot(Path("out")) == snapshot(Path("undisturbed"))


def signalling_at(name: str) -> Callable[[str, int], contextlib.AbstractContextManager[Callable[[int], None]]]:
    """A progress bar that raises a signal in the middle of the fine-tune of that name."""
    return lambda label, total: (signalling(signal.SIGINT, 3) if label == name else progress_bar)(label, total)


def test_no_resume_starts_afresh(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("dtscodec.cli.encode.progress_bar", signalling(signal.SIGINT, 9))
        cli.run("encode", "base", "movie", "-o", "out")
    cli("encode", "base", "movie", "-o", "out", "--no-resume")
    assert not Path("out.part").exists()


@pytest.mark.parametrize("change", [["--size", "2%"], ["--preset", "paper"], ["--no-files"], ["--raw", "classifier*"]])
def test_finished_tensors_of_other_settings_are_refused_and_stay(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, change: list[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("dtscodec.cli.encode.progress_bar", signalling(signal.SIGINT, 9))
        cli.run("encode", "base", "movie", "-o", "out")
    before = snapshot(Path())
    code, out, err = cli.run("encode", "base", "movie", "-o", "out", *change)
    assert (code, out) == (1, "")
    detail = "expected finished tensors of the same encode, got those of other inputs or settings"
    assert err.endswith(f"out.part: {detail}; start afresh with --no-resume, or choose another output (-o)\n")
    assert snapshot(Path()) == before


def test_finished_tensors_of_another_fine_tune_are_refused(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("dtscodec.cli.encode.progress_bar", signalling(signal.SIGINT, 9))
        cli.run("encode", "base", "movie", "-o", "out")
    weights = Path("movie/model.safetensors")
    weights.write_bytes(weights.read_bytes())
    code, _, err = cli.run("encode", "base", "movie", "-o", "out")
    assert (code, "other inputs or settings" in err) == (1, True)


def test_a_file_of_that_name_that_is_something_else_is_left_alone(cli: Cli) -> None:
    Path("out.part").write_text("mine")
    for more in ([], ["--no-resume"]):
        line = cli.fails("encode", "base", "movie", "-o", "out", *more)
        assert "expected a journal of an earlier encode" in line
        assert "results are stored" not in line


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_what_is_damaged_is_done_again(cli: Cli, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    cli("encode", "base", "movie", "-o", "undisturbed")
    with monkeypatch.context() as patch:
        patch.setattr("dtscodec.cli.encode.progress_bar", signalling(signal.SIGINT, 9))
        cli.run("encode", "base", "movie", "-o", "out")
    content = bytearray(Path("out.part").read_bytes())
    content[len(content) // 2] ^= 1
    Path("out.part").write_bytes(content[:-3] if damage == "cut" else content)
    code, _, err = cli.run("encode", "base", "movie", "-o", "out")
    assert code == 0
    assert int(err.split("dtscodec: ")[1].split()[0]) < 9
    assert Path("out").read_bytes() == Path("undisturbed").read_bytes()


def test_two_encodes_of_one_output_do_not_mix(cli: Cli) -> None:
    with Journal("out.part"):
        line = cli.fails("encode", "base", "movie", "-o", "out")
    assert line.startswith("out.part: expected no other process at work on it, got one")
    assert "results are stored" not in line


def test_a_refusal_of_the_input_leaves_no_part(cli: Cli) -> None:
    cli.fails("encode", "base", "movie", "-o", "out", "--size", "10B")


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
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    parts = [path for path in Path().glob("*.part")]
    expected = f"interrupted; {how_to_resume(parts[0].name)}" if parts else LINE
    assert (process.returncode, err) == (1, f"dtscodec: {expected}\n")
    for part in parts:
        part.unlink()
    assert snapshot(Path()) == before


def until_working(process: "subprocess.Popen[str]") -> None:
    assert process.stdout
    assert process.stdout.readline() == "working\n"


def until_there_are_results(process: "subprocess.Popen[str]") -> None:
    until_part_has(1000, process)


def until_part_has(size: int, process: "subprocess.Popen[Any]") -> None:
    """Wait for so many bytes of finished tensors, or the end."""
    part = Path("out.part")
    while process.poll() is None and not (part.exists() and part.stat().st_size > size):
        time.sleep(0.002)


FORCED = ["encode", "base", "movie", "--force"]
WITH_WORKERS = ["encode", "base", "movie", "-o", "out", "--workers", "2"]


@pytest.mark.parametrize("command", [FORCED, WITH_WORKERS, COMMANDS[0]], ids=" ".join)
@pytest.mark.usefixtures("work")
def test_ctrl_c_ends_a_process(command: list[str]) -> None:
    interrupted([sys.executable, "-c", STALLING, *command], signal.SIGINT, until_working)


@pytest.mark.usefixtures("work")
def test_termination_ends_a_process() -> None:
    interrupted([sys.executable, "-c", STALLING, *COMMANDS[2]], signal.SIGTERM, until_working)


def long_encode(*more: str) -> list[str]:
    """A command that takes some seconds."""
    base = {f"layer.{i}.weight": torch.randn(400, 400) for i in range(40)}
    save_file(base, "b.safetensors")
    save_file({name: tensor + torch.randn(400, 400) for name, tensor in base.items()}, "f.safetensors")
    return [sys.executable, "-m", "dtscodec", "encode", "b.safetensors", "f.safetensors", "-o", "out", *more]


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.usefixtures("work")
def test_ctrl_c_in_the_middle_of_a_long_encode(workers: str) -> None:
    interrupted(long_encode("--workers", workers), signal.SIGINT, until_there_are_results)


@pytest.mark.usefixtures("work")
def test_an_encode_that_is_killed_again_and_again_ends_with_the_same_bytes() -> None:
    command = long_encode()
    subprocess.run([*command[:-1], "undisturbed"], check=True, stdout=subprocess.PIPE)
    before, random = snapshot(Path()), Random(0)
    for _ in range(10):
        found = Path("out.part").stat().st_size if Path("out.part").exists() else 0
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            until_part_has(found + random.randrange(60_000), process)
            time.sleep(random.random() / 100)
            process.kill()
        assert set(snapshot(Path())) - set(before) <= {"out.part", "out"}
    subprocess.run([*command, "--force"], check=True, capture_output=True)
    assert Path("out").read_bytes() == Path("undisturbed").read_bytes()
    assert set(snapshot(Path())) - set(before) == {"out"}


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
