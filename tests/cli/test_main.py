"""The command line as a whole, and as a process."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file

import dtscodec
from dtscodec.cli.main import COMMANDS
from tests.cli.helpers import PACK, Cli, fine_tensors

SCRIPT = str(Path(sys.executable).with_name("dtscodec"))
MODULE = [sys.executable, "-m", "dtscodec"]
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def test_help_lists_every_command(cli: Cli) -> None:
    text = cli("--help")
    names = list(COMMANDS)
    assert " ".join(names) == (
        "encode decode strip fold info verify compare fit collect merge family fuse series report export import push"
    )
    for name in names:
        assert re.search(rf"^ +{name}\s", text, re.MULTILINE)
        assert cli(name, "--help").startswith(f"usage: dtscodec {name} ")
    assert "exit codes: 0 done, 1 failed, 2 wrong usage" in text


def modules_of(*arguments: str) -> set[str]:
    """Modules that a process of the command line has imported at its end."""
    code = "import sys; from dtscodec.cli.main import main\ntry: main(sys.argv[1:])\nfinally: print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    return set(run.stdout.splitlines()[-1].split())


def test_the_overview_imports_no_command_and_no_arrays() -> None:
    modules = modules_of("--help")
    assert not {f"dtscodec.cli.{name.replace('import', 'import_')}" for name in COMMANDS} & modules
    assert not {"numpy", "torch", "huggingface_hub"} & modules
    assert len([module for module in modules if module.startswith("dtscodec.")]) <= 8


@pytest.mark.parametrize("command", ["encode", "decode", "info", "verify", "compare", "fit", "collect", "fuse"])
def test_help_on_a_command_imports_no_other_command(command: str) -> None:
    modules = modules_of(command, "--help")
    assert {name for name in COMMANDS if f"dtscodec.cli.{name}" in modules} == {command}
    assert not {"numpy", "torch", "huggingface_hub"} & modules


def test_version(cli: Cli) -> None:
    assert cli("--version") == f"dtscodec {dtscodec.__version__}\n"


@pytest.mark.parametrize(
    "command",
    [[], ["nonsense"], ["info"], ["info", PACK, "--nonsense"], ["encode", "base"], ["decode", PACK, "--dtype", "x"]],
)
def test_wrong_usage(cli: Cli, command: list[str]) -> None:
    assert "error: " in cli.misused(*command)


@pytest.mark.usefixtures("work")
def test_console_script_and_module_work_quietly_in_pipes() -> None:
    for command in (
        [SCRIPT, "encode", "base", "tweets"],
        [*MODULE, "decode", "tweets.dts.safetensors", "--base", "base", "-o", "out"],
    ):
        run = subprocess.run(command, capture_output=True, text=True)
        assert (run.returncode, run.stderr) == (0, "")
        assert run.stdout


@pytest.mark.usefixtures("work")
def test_exit_code_of_a_process_that_fails() -> None:
    run = subprocess.run([SCRIPT, "info", "missing"], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == "dtscodec: missing: expected a pack, got 'No such file or directory'\n"


def test_a_reader_that_has_seen_enough(work: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    for command in (["info", PACK, "--tensors"], ["info", PACK, "--json"], ["verify", PACK]):
        run = subprocess.run([*MODULE, *command], stdout=writer, stderr=subprocess.PIPE, env=BUFFERED, text=True)
        assert (run.returncode, run.stderr) == (1, "")
    os.close(writer)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's device that is always full")
@pytest.mark.usefixtures("work")
def test_a_full_disk_behind_standard_output() -> None:
    with open("/dev/full", "w") as full:
        run = subprocess.run([*MODULE, "info", PACK], stdout=full, stderr=subprocess.PIPE, env=BUFFERED, text=True)
    line = "dtscodec: standard output: expected to write it, got 'No space left on device'\n"
    assert (run.returncode, run.stderr) == (1, line)


def test_a_terminal_of_few_characters(cli: Cli, work: Path) -> None:
    save_file(fine_tensors(11) | {"größe": fine_tensors(11)["steps"]}, "a.safetensors")
    cli("encode", "base", "größe=a.safetensors", "-o", "a")
    for options in ([], ["--json"]):
        command = [*MODULE, "info", "a", "--tensors", *options]
        run = subprocess.run(command, capture_output=True, text=True, env=BUFFERED | {"PYTHONIOENCODING": "ascii"})
        assert (run.returncode, run.stderr) == (0, "")
        assert "gr\\xf6\\xdfe" in run.stdout or json.loads(run.stdout)["task"] == "größe"


@pytest.mark.usefixtures("work")
def test_closed_standard_streams() -> None:
    command = f"exec {' '.join(MODULE)} decode {PACK} --base base -o out >&- 2>&-"
    assert subprocess.run(command, shell=True).returncode == 0
    assert Path("out/model.safetensors").is_file()


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    "command",
    [
        ["encode", "base", "movie", "-o", "out"],
        ["decode", PACK, "--base", "base", "-o", "out"],
        ["verify", PACK],
        ["compare", PACK, "movie", "--base", "base"],
    ],
    ids=" ".join,
)
def test_a_terminal_sees_progress_in_bytes(cli: Cli, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    terminal = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        code, out, _ = cli.run(*command)
    assert code == 0
    label = "movie" if command[0] == "encode" else command[0]
    assert re.search(rf"\r{label}: +\d+%.*B/s", terminal.getvalue())
    # The bar is erased; only a hint on what to do next may follow it.
    after = terminal.getvalue().split("\r")[-1].strip()
    assert after == "" or after.startswith("dtscodec: movie: to measure")
    assert label not in out or command[0] == "encode"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    ],
)
def test_memory_that_runs_out(cli: Cli, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("dtscodec.encoding.tensor_task.encode_segments", fail)
    code, _, err = cli.run("encode", "base", "movie", "-o", "out")
    remedy, line = err.splitlines()
    assert (code, remedy.split(":")[1]) == (1, " results are stored in out.part")
    assert line.startswith("dtscodec: out of memory: expected")


def test_a_mistake_of_ours_is_not_hidden(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr("dtscodec.encoding.tensor_task.encode_segments", fail)
    with pytest.raises(RuntimeError, match="a mistake"):
        cli.run("encode", "base", "movie", "-o", "out")
