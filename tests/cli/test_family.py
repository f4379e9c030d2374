"""``dtscodec family``: packs whose base is merged from the fine-tunes, with no pre-trained model anywhere."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import dtscodec
from dtscodec.checkpoints.base import Base
from dtscodec.encoding.encoded_tensor import encode_segments
from dtscodec.errors import ConfigError, EncodeError
from dtscodec.merging.methods.registry import METHODS
from dtscodec.merging.methods.ties import Ties
from tests.cli.helpers import CODED, Cli, base_tensors, fine_tensors, load, write_model

pytestmark = pytest.mark.slow

TASKS = ("movie", "tweets", "news")


@pytest.fixture
def three(cli: Cli, work: Path) -> Cli:
    """Three fine-tunes, of which one has another number of classes, and no base on disk."""
    write_model(work / "news", fine_tensors(13) | {"classifier.weight": torch.ones(5, 32)}, task="news")
    shutil.move(work / "base", work.parent / "hidden")
    return cli


def size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def test_three_fine_tunes_in_a_directory_out(three: Cli) -> None:
    out = three("family", "average", *TASKS, "-o", "dir", *CODED)
    first = out.splitlines()[0]
    assert first.startswith(
        "average of 3 fine-tunes: 19.1 kB, tensors 6 averaged; 1 copied; left out: classifier.weight;"
    )
    assert first.endswith(" s: dir/base.safetensors")
    # A line about each pack, and one about its head, which the base lacks.
    assert len(out.splitlines()) == 1 + 2 * len(TASKS)
    names = sorted(path.relative_to("dir").as_posix() for path in Path("dir").rglob("*") if path.is_file())
    packs = [f"packs/{task}.safetensors" for task in sorted(TASKS)]
    assert names == ["base.safetensors", "dtscodec.json", *packs, "vocab.txt"]
    base = sum(load("movie/model.safetensors")[name].nbytes for name in load("movie/model.safetensors"))
    assert size(Path("dir")) <= 1.05 * base + sum(size(Path("dir") / pack) for pack in packs)
    for task, seed in zip(TASKS, (11, 12, 13), strict=True):
        line = three("decode", f"dir/packs/{task}.safetensors", "-o", f"{task}-again")
        assert "8 tensors" in line
        again = load(f"{task}-again/model.safetensors")
        assert sorted(again) == sorted(fine_tensors(seed))
        assert json.loads(Path(f"{task}-again/config.json").read_text())["task"] == task
        assert Path(f"{task}-again/vocab.txt").read_text() == "a\nb\nc\n"
        assert again["frozen.weight"].equal(fine_tensors(seed)["frozen.weight"])
    assert "base checked" in three("verify", "dir/packs/movie.safetensors", "--base", "dir/base.safetensors")
    assert three.json("compare", "dir/packs/movie.safetensors", "movie")["relative_error"] < 1


def test_a_plain_base_has_the_same_digest(three: Cli) -> None:
    three("family", "average", *TASKS, "-o", "a", *CODED)
    three("family", "average", *TASKS, "-o", "b", *CODED, "--plain-base")
    assert sorted(load("b/base.safetensors"))[0] == "decoder.weight"
    with Base("a/base.safetensors") as one, Base("b/base.safetensors") as other:
        assert one.digest(one.specs) == other.digest(other.specs)
    for task in TASKS:
        assert (Path("a") / f"packs/{task}.safetensors").read_bytes() == (
            Path("b") / f"packs/{task}.safetensors"
        ).read_bytes()
    assert size(Path("a/base.safetensors")) < size(Path("b/base.safetensors"))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_recorded_in_the_packs(cli: Cli, method: str) -> None:
    cli("family", method, "movie", "tweets", "--base", "base", "-o", "dir", *CODED)
    encoder = cli.json("info", "dir/packs/movie.safetensors")["encoder"]
    assert f"; base: {method}" in encoder
    assert cli.json("info", "dir")["base"]["made_by"] == encoder.partition("; base: ")[2]
    if method == "ties":
        assert encoder.endswith("; base: ties alpha=1.0 keep=0.2 combine=mean")


def test_a_pack_made_against_a_base_from_merge_records_it_too(cli: Cli) -> None:
    cli("merge", "task-arithmetic", "movie", "tweets", "--base", "base", "-o", "merged.safetensors", "--alpha", "0.5")
    cli("encode", "merged.safetensors", "movie", "-o", "pack", *CODED)
    assert cli.json("info", "pack")["encoder"].endswith("; base: task-arithmetic alpha=0.5")


def test_info_shows_tasks_base_and_the_size_of_difference_vectors(cli: Cli) -> None:
    cli("family", "ties", "movie", "tweets", "--base", "base", "-o", "dir", *CODED)
    facts = cli.json("info", "dir")
    assert facts["size"] == sum(size(Path(f"dir/packs/{task}.safetensors")) for task in ("movie", "tweets"))
    assert facts["base"]["stored"] == size(Path("dir/base.safetensors"))
    for task, pack in facts["packs"].items():
        to_average, to_base, to_pretrained = (
            pack["figures"][f"distance_to_{x}"] for x in ("average", "base", "pretrained")
        )
        assert to_average < to_base < to_pretrained * 1.5
        assert cli.json("info", f"dir/{pack['file']}")["task"] == task
    text = cli("info", "dir")
    assert "from the base  from the average  from the pre-trained base" in text
    assert "base        dir" not in text
    assert "base        base.safetensors, " in text


def test_info_of_a_directory_without_figures_or_base(cli: Cli) -> None:
    cli("encode", "base", "movie", "tweets", "-o", "dir", *CODED)
    text = cli("info", "dir")
    assert "base        not in the directory" in text
    assert "from the" not in text
    assert cli.fails("info", "base").startswith("base: expected a pack")


def test_duplicates_take_next_to_nothing(cli: Cli, work: Path) -> None:
    shutil.copytree(work / "movie", work / "again")
    cli("family", "average", "movie", "again", "-o", "dir")
    facts = cli.json("info", "dir/packs/again.safetensors")
    assert facts["kinds"]["same"]["tensors"] == facts["tensors"]


def test_an_interrupted_run_is_resumed_with_the_base_that_it_made(three: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["family", "average", *TASKS, "-o", "dir", *CODED]
    three(*command)
    whole = {path.name: path.read_bytes() for path in Path("dir").rglob("*") if path.is_file()}
    shutil.rmtree("dir")
    with monkeypatch.context() as patch:
        patch.setattr("dtscodec.encoding.tensor_task.encode_segments", interrupt_after(12))
        code, _, err = three.run(*command)
    assert code == 1
    assert "the same command resumes the run" in err
    base = Path("dir/base.safetensors")
    before = base.stat().st_mtime_ns
    code, _, err = three.run(*command)
    assert code == 0, err
    assert "results of an earlier run" in err
    assert base.stat().st_mtime_ns == before
    assert {path.name: path.read_bytes() for path in Path("dir").rglob("*") if path.is_file()} == whole


def test_what_fails_leaves_nothing(cli: Cli, work: Path) -> None:
    save_file({"h": torch.ones(5, 5)}, work / "other.safetensors")
    bad = fine_tensors(14)
    bad["encoder.weight"][0, 0] = float("nan")
    save_file(bad, work / "bad.safetensors")
    lines = {
        ("average", "movie", "other.safetensors"): "expected the architecture of",
        ("average", "movie", "bad.safetensors"): "encoder.weight: expected finite elements",
        ("ties", "movie", "tweets"): "ties: expected the base of the fine-tunes, got none; name it with --base",
        ("average", "movie", "tweets", "--size", "10"): "",
        ("average", "movie", "tweets", "--raw", "cnov*"): "raw: expected patterns that fit a tensor",
        ("average", "movie", "movie"): "expected a name of its own",
    }
    for arguments, line in lines.items():
        assert line in three_fails(cli, "family", *arguments, "-o", "dir")


@pytest.mark.parametrize("more", [("--size", "10"), ("--raw", "cnov*")])
def test_a_directory_that_is_to_be_replaced_comes_back_if_that_fails(three: Cli, more: tuple[str, ...]) -> None:
    three("family", "average", *TASKS, "-o", "dir", *CODED)
    before = {path: path.read_bytes() for path in Path("dir").rglob("*") if path.is_file()}
    three_fails(three, "family", "ties", *TASKS, "--base", "../hidden", "-o", "dir", "--force", *more)
    assert {path: path.read_bytes() for path in Path("dir").rglob("*") if path.is_file()} == before
    three("family", "ties", *TASKS, "--base", "../hidden", "-o", "dir", "--force", *CODED)
    assert {path for path in Path("dir").rglob("*") if path.is_file()} == set(before)
    three("verify", f"dir/packs/{TASKS[0]}.safetensors", "--base", "dir/base.safetensors")


def test_what_an_interrupted_run_replaced_comes_back_if_the_next_fails(
    three: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    three("family", "average", *TASKS, "-o", "dir", *CODED)
    before = {path: path.read_bytes() for path in Path("dir").rglob("*") if path.is_file()}
    again = ["family", "ties", *TASKS, "--base", "../hidden", "-o", "dir", "--force"]
    with monkeypatch.context() as patch:
        patch.setattr("dtscodec.encoding.tensor_task.encode_segments", interrupt_after(12))
        assert three.run(*again, *CODED)[0] == 1
    assert Path("dir/dtscodec.part").exists()
    assert three.run(*again, "--no-resume", "--size", "10")[0] == 1
    assert {path: path.read_bytes() for path in Path("dir").rglob("*") if path.is_file()} == before


def test_a_base_merged_from_other_inputs_is_not_resumed(three: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["family", "ties", *TASKS, "-o", "dir", *CODED, "--base"]
    with monkeypatch.context() as patch:
        patch.setattr("dtscodec.encoding.tensor_task.encode_segments", interrupt_after(12))
        assert three.run(*command, "../hidden")[0] == 1
    assert "of other inputs or settings" in three.run(*command, "movie")[2]
    assert three.run(*command, "../hidden")[0] == 0


def test_embeddings_that_make_most_of_the_model_may_be_heads(three: Cli) -> None:
    three("family", "average", *TASKS, "-o", "dir", *CODED, "--raw", "*embeddings*", "--raw", "decoder*")
    three("verify", f"dir/packs/{TASKS[0]}.safetensors", "--base", "dir/base.safetensors")


def interrupt_after(count: int) -> Any:
    """`encode_segments`, which is interrupted at some call."""
    real: Any = encode_segments
    calls: list[int] = []

    def interrupted(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == count:
            raise KeyboardInterrupt
        return real(*arguments)

    return interrupted


def three_fails(cli: Cli, *arguments: str) -> str:
    """As `fails`, but the base may have been told of before."""
    from tests.cli.helpers import snapshot

    before = snapshot(Path())
    code, _, err = cli.run(*arguments)
    assert code == 1
    assert err.splitlines()[-1].startswith("dtscodec: ")
    assert snapshot(Path()) == before
    return err


def test_what_exists_is_replaced_with_force_only(three: Cli) -> None:
    command = ["family", "average", *TASKS, "-o", "dir", *CODED]
    three(*command)
    assert "pass --force to replace it" in three.fails(*command)
    shutil.rmtree("dir/packs")
    assert three.fails(*command).startswith("dir/base.safetensors: ")
    three(*command, "--force")


def test_packs_of_another_base_in_the_directory_keep_it(three: Cli) -> None:
    three("family", "average", *TASKS, "-o", "dir", *CODED)
    line = "dir: expected no packs of another base, got 'news'; merge all its tasks, or choose another output (-o)"
    assert three.fails("family", "average", "movie", "tweets", "-o", "dir", *CODED, "--force") == line


@pytest.mark.parametrize(
    "more",
    [
        ["family", "average", "movie", "tweets"],
        ["family", "nonsense", "movie", "tweets", "-o", "dir"],
        ["family", "average", "movie", "tweets", "-o", "dir", "--map", "a=b"],
        ["family", "average", "-o", "dir"],
        ["encode", "movie", "tweets", "--plain-base"],
        ["encode", "movie", "tweets", "--keep", "0.1"],
        ["encode", "movie", "tweets", "--base", "base"],
        ["encode", "--merge", "average", "movie", "tweets", "-o", "dir"],
    ],
)
def test_wrong_usage(cli: Cli, more: list[str]) -> None:
    assert "error: " in cli.misused(*more)


def test_one_fine_tune_has_no_average(cli: Cli) -> None:
    line = "average: expected at least 2 fine-tunes, got 1"
    assert cli.fails("family", "average", "movie", "-o", "dir") == line


def test_from_python(tmp_path: Path) -> None:
    states = {task: fine_tensors(seed) for task, seed in (("one", 11), ("two", 12))}
    config = dtscodec.EncodeConfig(dtscodec.RankShare(0.5))
    report = dtscodec.encode_family(states, tmp_path / "dir", Ties(keep=0.5), base_tensors(), config=config)
    assert list(report.packs) == list(states)
    assert report.base is not None
    assert report.base.method == "ties alpha=1.0 keep=0.5 combine=mean"
    for task, state in states.items():
        with dtscodec.decode(report.packs[task].path) as decoded:
            assert decoded["steps"].tolist() == state["steps"].tolist()


def test_from_python_progress_comes_for_the_base_and_for_each_pack_with_its_report(tmp_path: Path) -> None:
    states = {task: fine_tensors(seed) for task, seed in (("one", 11), ("two", 12))}
    events: list[str] = []
    counted: dict[str, list[int]] = {}

    @contextlib.contextmanager
    def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
        counted[label] = [total, 0]

        def count(size: int) -> None:
            counted[label][1] += size

        events.append(f"begin {label}")
        yield count
        events.append(f"end {label}")

    dtscodec.encode_family(
        states,
        tmp_path / "dir",
        Ties(keep=0.5),
        base_tensors(),
        progress=progress,
        on_base=lambda report: events.append(f"made {report.path.name}"),
        on_pack=lambda task, report: events.append(f"made {task}"),
    )
    assert events == [
        "begin base", "end base", "made base.safetensors",
        "begin one", "end one", "made one",
        "begin two", "end two", "made two",
    ]  # fmt: skip
    assert all(0 < done <= total for total, done in counted.values())


def test_from_python_a_failure_leaves_the_directory_as_it_was(tmp_path: Path) -> None:
    states = {task: fine_tensors(seed) for task, seed in (("one", 11), ("two", 12))}
    dtscodec.encode_family(states, tmp_path / "dir")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    small = dtscodec.EncodeConfig(dtscodec.Size.parse("10"))
    with pytest.raises(EncodeError):
        dtscodec.encode_family(states, tmp_path / "dir", "iso-c", base_tensors(), config=small, force=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    with pytest.raises(ConfigError, match="renames"):
        dtscodec.encode_family(states, tmp_path / "new", config=dtscodec.EncodeConfig(renames=(("a", "b"),)))
    assert not (tmp_path / "new").exists()


def test_a_base_from_merge_serves_packs_too(tmp_path: Path) -> None:
    states = [fine_tensors(seed) for seed in (11, 12)]
    base = dtscodec.merge(states, tmp_path / "base.safetensors").path
    for task, state in enumerate(states):
        report = dtscodec.encode(
            base, state, tmp_path / f"{task}.safetensors", dtscodec.EncodeConfig(target=dtscodec.RankShare(0.5))
        )
        with dtscodec.decode(report.path, base) as decoded:
            assert decoded["steps"].tolist() == state["steps"].tolist()
