import contextlib
import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dtscodec.errors import OutputError
from dtscodec.files.atomic import atomic_directory, atomic_file, output_file

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def names(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir())


def one_line(error: BaseException, *words: str) -> None:
    text = str(error)
    assert "\n" not in text
    assert all(word in text for word in words), text


def test_file_appears_when_the_with_ends(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "x") as file:
        file.write(b"hello")
        file.seek(0)
        assert file.read() == b"hello"
        file.seek(1)
        file.write(b"a")
        assert not (tmp_path / "x").exists()
    assert (tmp_path / "x").read_bytes() == b"hallo"
    assert names(tmp_path) == ["x"]


def test_file_is_as_readable_as_the_umask_says(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "x"):
        pass
    (tmp_path / "y").touch()
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "y").stat().st_mode
    assert stat.S_ISREG((tmp_path / "x").stat().st_mode)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError(), SystemExit(), OSError(errno.EIO, "elsewhere")])
def test_any_exception_leaves_nothing_and_passes_unchanged(tmp_path: Path, error: Any) -> None:
    def make_file() -> None:
        with atomic_file(tmp_path / "x") as file:
            file.write(bytes(100_000))
            raise error

    def make_directory() -> None:
        with atomic_directory(tmp_path / "d") as directory:
            (directory / "a").write_text("b")
            raise error

    for make in (make_file, make_directory):
        with pytest.raises(BaseException) as caught:  # noqa: PT011 - which one is looked at below
            make()
        assert caught.value is error
    assert names(tmp_path) == []


def test_existing_output_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old")
    for make in (atomic_file, atomic_directory):
        with pytest.raises(OutputError) as caught, make(tmp_path / "x"):
            pytest.fail("work was begun")
        one_line(caught.value, str(tmp_path / "x"), "`out`")
    assert (tmp_path / "x").read_text() == "old"
    assert names(tmp_path) == ["x"]


def test_dangling_link_counts_as_existing(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to("nowhere")
    with pytest.raises(OutputError, match="force=True"), atomic_file(tmp_path / "x"):
        pass


@pytest.mark.parametrize("links", [True, False])
def test_file_that_appeared_meanwhile_is_not_replaced(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        without_links(monkeypatch)
    with pytest.raises(OutputError, match="force=True"), atomic_file(tmp_path / "x"):
        (tmp_path / "x").write_text("other")
    assert (tmp_path / "x").read_text() == "other"
    assert names(tmp_path) == ["x"]


def no_links(source: Any, target: Any) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """As file systems do that know neither links nor unnamed files."""
    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)


def test_file_system_without_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_links(monkeypatch)
    with atomic_file(tmp_path / "x") as file:
        file.write(b"a")
    assert (tmp_path / "x").read_bytes() == b"a"
    assert names(tmp_path) == ["x"]


KILLED = """
import os, signal, sys
from dtscodec.files.atomic import atomic_file
with atomic_file(sys.argv[1]) as file:
    file.write(bytes(100_000))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="this system has no unnamed files")
def test_a_killed_process_leaves_nothing(tmp_path: Path) -> None:
    process = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "x")], check=False)
    assert process.returncode == -signal.SIGKILL
    assert names(tmp_path) == []


def test_force_replaces_a_file_at_the_end_only(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old")
    with contextlib.suppress(KeyboardInterrupt), atomic_file(tmp_path / "x", force=True) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert (tmp_path / "x").read_text() == "old"
    with atomic_file(tmp_path / "x", force=True) as file:
        file.write(b"new")
    assert (tmp_path / "x").read_text() == "new"
    assert names(tmp_path) == ["x"]


def test_force_replaces_neither_directories_nor_devices(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(OutputError, match="a directory"), atomic_file(tmp_path / "d", force=True):
        pass
    with pytest.raises(OutputError, match="a device"), atomic_file(os.devnull, force=True):
        pass
    (tmp_path / "x").touch()
    with pytest.raises(OutputError, match="got a file"), atomic_directory(tmp_path / "x", force=True):
        pass


def test_input_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m/x").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "m")
    for path in (tmp_path / "m/x", tmp_path / "link/x"):
        with pytest.raises(OutputError, match="the input"), atomic_file(path, True, [tmp_path / "m/x"]):
            pass
    for path in (tmp_path / "m", tmp_path / "link"):
        for given in (tmp_path / "m/x", tmp_path / "m", tmp_path / "link/x"):
            with pytest.raises(OutputError, match="the input"), atomic_directory(path, True, [given]):
                pass
    assert (tmp_path / "m/x").read_text() == "old"


def test_missing_parent_says_to_create_it(tmp_path: Path) -> None:
    for make in (atomic_file, atomic_directory):
        with pytest.raises(OutputError, match="create it first") as caught, make(tmp_path / "no/x"):
            pytest.fail("work was begun")
        one_line(caught.value, str(tmp_path / "no"))


def test_parent_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    for make in (atomic_file, atomic_directory):
        with pytest.raises(OutputError, match="got a file"), make(tmp_path / "f/x"):
            pass


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, where nobody can create files, not even root")
def test_place_that_cannot_be_written_is_told_before_any_work() -> None:
    for make in (atomic_file, atomic_directory):
        with pytest.raises(OutputError) as caught, make("/proc/self/x"):
            pytest.fail("work was begun")
        one_line(caught.value, "/proc/", "x", "choose another output")


@pytest.mark.skipif(ROOT, reason="root may write anywhere")
def test_directory_without_permission_is_told_before_any_work(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"), atomic_file(tmp_path / "x"):
        pytest.fail("work was begun")


def test_full_disk_is_one_line_and_leaves_nothing(small_disk: Path) -> None:
    with pytest.raises(OutputError) as caught, atomic_file(small_disk / "x") as file:
        file.writelines([bytes(1000)] * 1000)
    one_line(caught.value, str(small_disk / "x"), "No space left", "free some space")
    assert names(small_disk) == []


def test_disk_that_is_full_only_when_flushed_is_one_line(small_disk: Path) -> None:
    (small_disk / "fill").write_bytes(bytes(60_000))
    with pytest.raises(OutputError, match="No space left"), atomic_file(small_disk / "x") as file:
        file.write(bytes(8000))
    assert names(small_disk) == ["fill"]


def test_full_disk_in_a_directory_is_one_line(small_disk: Path) -> None:
    with (
        pytest.raises(OutputError) as caught,
        atomic_directory(small_disk / "d") as directory,
        output_file(directory / "a", shown=small_disk / "d/a") as file,
    ):
        file.write(bytes(100_000))
    one_line(caught.value, str(small_disk / "d/a"), "No space left")
    assert names(small_disk) == []


def test_directory_appears_whole(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "d") as directory:
        (directory / "sub").mkdir()
        (directory / "sub/a").write_text("b")
        assert not (tmp_path / "d").exists()
    assert (tmp_path / "d/sub/a").read_text() == "b"
    assert names(tmp_path) == ["d"]


def test_empty_directory_may_exist(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with atomic_directory(tmp_path / "d") as directory:
        (directory / "a").touch()
    assert names(tmp_path / "d") == ["a"]
    assert names(tmp_path) == ["d"]


def test_directory_that_was_filled_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="force=True"), atomic_directory(tmp_path / "d"):
        (tmp_path / "d/other").mkdir(parents=True)
    assert names(tmp_path / "d") == ["other"]
    assert names(tmp_path) == ["d"]


def test_force_swaps_directories(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/old").touch()
    with atomic_directory(tmp_path / "d", force=True) as directory:
        (directory / "new").touch()
        assert names(tmp_path / "d") == ["old"]
    assert names(tmp_path / "d") == ["new"]
    assert names(tmp_path) == ["d"]


def test_failed_swap_puts_the_old_directory_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/old").touch()
    rename, calls = os.rename, 0

    def fail_once(source: Any, target: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail_once)
    with pytest.raises(OutputError, match="Input/output"), atomic_directory(tmp_path / "d", force=True):
        pass
    assert names(tmp_path / "d") == ["old"]
    assert names(tmp_path) == ["d"]


def test_force_deletes_only_what_it_may(tmp_path: Path) -> None:
    (tmp_path / "d/sub").mkdir(parents=True)
    (tmp_path / "d/sub/notes.md").touch()
    with (
        pytest.raises(OutputError, match=r"'sub/notes\.md'"),
        atomic_directory(tmp_path / "d", True, replaceable=lambda name: name.endswith(".json")),
    ):
        pytest.fail("work was begun")
    assert names(tmp_path / "d/sub") == ["notes.md"]


def test_force_replaces_no_directory_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "d/e")
    (tmp_path / "d/e/x").touch()
    for path in (tmp_path / "d", Path(), Path("..")):
        with pytest.raises(OutputError, match="in use"), atomic_directory(path, force=True):
            pass
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", str(tmp_path / "d/e"))
    with pytest.raises(OutputError, match="in use"), atomic_directory(tmp_path / "d/e", force=True):
        pass


def test_linked_directory_is_replaced_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "real/d").mkdir(parents=True)
    (tmp_path / "real/d/old").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real/d")
    with atomic_directory(tmp_path / "link", force=True) as directory:
        (directory / "new").touch()
    assert names(tmp_path / "real/d") == ["new"]
    assert names(tmp_path / "real") == ["d"]
    assert (tmp_path / "link").is_symlink()
