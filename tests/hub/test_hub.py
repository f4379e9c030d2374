"""Packs on the Hub: pushed in one commit, read by range, decoded by name; a failure is one line and leaves nothing."""

import json
import subprocess
import sys
from hashlib import sha512
from pathlib import Path

import pytest
import torch

import dtscodec
from dtscodec.errors import CheckpointError, ConfigError, OutputError, PackNotFoundError
from dtscodec.format.summary import BaseRef
from dtscodec.hub.model_card import BEGIN, END
from dtscodec.storage import hub_client, hub_tree
from tests.cli.helpers import CODED, Cli, assert_equal, base_tensors, load, snapshot, write_model
from tests.fakes.hub.server import LoopbackHub
from tests.hub.helpers import TASKS, uploads_large_files
from tests.support import ROOT

pytestmark = uploads_large_files


def ranges(hub: LoopbackHub, name: str) -> list[str]:
    """Ranges of a file that were asked for."""
    return [log.range for log in hub.requests if log.method == "GET" and log.range and name in log.path]


def bytes_of(hub: LoopbackHub, name: str) -> int:
    return sum(log.sent for log in hub.requests if log.method == "GET" and name in log.path)


def test_a_push_is_one_commit_of_packs_index_page_and_configuration(cli: Cli, hub: LoopbackHub) -> None:
    cli("encode", "hf://me/base", *TASKS, "-o", "packs")
    line = cli("push", "packs", "me/packs").splitlines()[-1]
    assert len(hub.history("me/packs")) == 2  # That which made the repository, and ours.
    files = hub.files("me/packs")
    assert {f"packs/{task}.safetensors" for task in TASKS} | {"README.md", "config.json", "dtscodec.json"} <= set(files)
    for task in TASKS:
        assert files[f"packs/{task}.safetensors"] == Path(f"packs/packs/{task}.safetensors").read_bytes()
    assert line.startswith("6 files: ")
    page = files["README.md"].decode()
    for text in (
        "library_name: dtscodec",
        "base_model: me/base",
        "base_model_relation: adapter",
        "hf://me/packs/amazon",
    ):
        assert text in page
    commit = hub.history("me/base")[0].sha
    assert json.loads(files["dtscodec.json"])["base"] == f"hf://me/base@{commit}"
    with dtscodec.open("packs/packs/movie.safetensors") as pack:
        assert pack.summary.base is not None
        assert (pack.summary.base.repo, pack.summary.base.revision) == ("me/base", commit)


def test_a_pack_of_a_base_on_the_hub_is_that_of_the_local_one_but_for_its_name(cli: Cli) -> None:
    cli("encode", "hf://me/base", "movie", "-o", "a")
    cli("encode", "base", "movie", "-o", "b")
    cli("decode", "a", "-o", "out-a")
    cli("decode", "b", "--base", "base", "-o", "out-b")
    assert snapshot(Path("out-a")) == snapshot(Path("out-b"))


def test_info_reads_no_more_than_the_head_of_a_pack_in_two_requests(cli: Cli, hub: LoopbackHub) -> None:
    large = {f"layer.{i}": torch.randn(300, 300) for i in range(8)}
    write_model(Path("large"), large)
    dtscodec.encode(
        {name: tensor * 0 for name, tensor in large.items()}, "large", "big", dtscodec.EncodeConfig(raw=("*",))
    )
    hub.create("me/big")
    hub.commit("me/big", {"big": Path("big").read_bytes()})
    hub_tree.clear_listings()
    hub.requests.clear()
    info = cli.json("info", "hf://me/big/big")
    assert info["id"] == cli.json("info", "big")["id"]
    assert 0 < len(ranges(hub, "big")) <= 2
    assert bytes_of(hub, "/big") < 2**18 + 1000 < info["size"]  # Redirects have a body, too.


def test_info_of_a_long_index_takes_two_requests_too(
    cli: Cli, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dtscodec.storage.open_file.HEAD_BYTES", 2**16)
    fine = {sha512(b"%d" % i).hexdigest(): torch.ones(1) for i in range(1500)}
    dtscodec.encode({name: torch.zeros(1) for name in fine}, fine, "long", dtscodec.EncodeConfig(raw=("*",)))
    hub.create("me/long")
    hub.commit("me/long", {"long": Path("long").read_bytes()})
    hub_tree.clear_listings()
    hub.requests.clear()
    assert cli.json("info", "hf://me/long/long")["id"] == cli.json("info", "long")["id"]
    assert len([log for log in hub.requests if log.range and "/cdn/" in log.path]) == 2


def test_one_tensor_is_read_alone_from_pack_and_base(pushed: LoopbackHub) -> None:
    with dtscodec.open("hf://me/packs/movie") as pack:
        weight = pack.tensor("encoder.weight", "hf://me/base")
    assert bytes_of(pushed, "model.safetensors") < 0.9 * len(pushed.files("me/base")["model.safetensors"])
    with dtscodec.decode("packs/packs/movie.safetensors", "base") as state:
        assert torch.equal(torch.from_numpy(weight.copy()), state["encoder.weight"])


def test_a_whole_decode_needs_no_more_than_the_name_of_the_pack(cli: Cli, pushed: LoopbackHub) -> None:
    for number, name in enumerate(("movie", "packs/tweets.safetensors")):
        task = ("movie", "tweets")[number]
        cli("decode", f"hf://me/packs/{name}", "-o", f"out-{task}")
        cli("decode", f"packs/packs/{task}.safetensors", "--base", "base", "-o", f"local-{task}")
        assert snapshot(Path(f"out-{task}")) == snapshot(Path(f"local-{task}"))
    cli("verify", "hf://me/packs/movie", "--base", "hf://me/base")
    cli("compare", "hf://me/packs/movie", "movie")


def test_files_of_the_hub_are_fetched_once_through_the_cache(cli: Cli, pushed: LoopbackHub) -> None:
    cli("decode", "hf://me/packs/movie", "-o", "a")
    pushed.requests.clear()
    cli("decode", "hf://me/packs/movie", "-o", "b")
    assert bytes_of(pushed, ".safetensors") == 0


def test_a_branch_that_moves_meanwhile_does_not_matter(cli: Cli, pushed: LoopbackHub) -> None:
    with dtscodec.open("hf://me/packs/movie") as pack:
        pushed.commit("me/packs", {"packs/movie.safetensors": b"other"})
        pushed.commit("me/base", {"model.safetensors": b"other"})
        cli("decode", "hf://me/packs/movie", "-o", "a")  # In this process the branch is where it was.
        assert pack.delta("encoder.weight").any()
    hub_tree.clear_listings()
    assert "expected" in cli.fails("info", "hf://me/packs/movie")
    first = pushed.history("me/packs")[1].sha
    cli("decode", f"hf://me/packs@{first}/movie", "-o", "b")
    assert snapshot(Path("a")) == snapshot(Path("b"))


def test_a_pack_is_named_by_its_path_its_task_or_being_the_only_one(cli: Cli, pushed: LoopbackHub) -> None:
    line = cli.fails("info", "hf://me/packs/none")
    assert line == (
        "hf://me/packs/none: expected the path or the task of a pack, got neither; tasks there: amazon, movie, tweets"
    )
    assert "tasks there: amazon" in cli.fails("info", "hf://me/packs")
    cli("encode", "hf://me/base", "movie", "-o", "one/")
    cli("push", "one", "me/one")
    hub_tree.clear_listings()
    assert cli.json("info", "hf://me/one")["task"] == "movie"
    pushed.commit("me/packs", {"movie": Path("packs/packs/tweets.safetensors").read_bytes()})
    hub_tree.clear_listings()
    assert cli.json("info", "hf://me/packs/movie")["task"] == "tweets"  # A path wins.


def test_a_model_takes_a_pack_by_its_name(pushed: LoopbackHub) -> None:
    names = {"encoder.weight": (48, 32), "encoder.bias": (48,)}
    model = torch.nn.Module()
    model.encoder = torch.nn.Linear(32, 48)
    model.load_state_dict({name: base_tensors()[name] for name in names})
    fine = {name: base_tensors()[name] + 0.1 for name in names}
    dtscodec.encode("hf://me/base", fine, "part", dtscodec.EncodeConfig(raw=("*",)))
    dtscodec.push("part", "me/part", base="hf://me/base")
    dtscodec.apply_(model, "hf://me/part")
    assert_equal(model.state_dict(), fine)


def test_only_what_changed_is_pushed_and_nothing_if_nothing_did(cli: Cli, pushed: LoopbackHub) -> None:
    before = pushed.history("me/packs")
    assert cli("push", "packs", "me/packs") == "3 packs unchanged; everything is up to date\n"
    assert pushed.history("me/packs") == before
    cli("encode", "hf://me/base", "movie", "-o", "packs/", "--rank", "1", "--force")
    done = cli.json("push", "packs", "me/packs")
    assert set(done["files"]) == {"packs/movie.safetensors", "dtscodec.json", "README.md"}
    assert done["unchanged"] == ["amazon", "tweets"]
    assert len(pushed.history("me/packs")) == len(before) + 1


def test_one_pack_is_added_to_those_that_are_there(cli: Cli, pushed: LoopbackHub) -> None:
    cli("encode", "hf://me/base", "more=movie", "-o", "more.safetensors")
    cli("push", "more.safetensors", "me/packs")
    assert sorted(json.loads(pushed.files("me/packs")["dtscodec.json"])["packs"]) == [
        "amazon",
        "more",
        "movie",
        "tweets",
    ]


def test_a_dry_run_changes_nothing_and_says_what_would_be(cli: Cli, hub: LoopbackHub) -> None:
    cli("encode", "hf://me/base", "movie", "-o", "packs/")
    out = cli("push", "packs", "me/new", "--dry-run")
    assert "packs/movie.safetensors" in out
    assert out.endswith("4 files would be uploaded to me/new\n")
    assert "me/new" not in hub.repositories
    assert not any(log.method in ("POST", "PUT") and "commit" in log.path for log in hub.requests)


def test_what_the_owner_wrote_stays_on_the_page(cli: Cli, hub: LoopbackHub) -> None:
    hub.create("me/packs")
    hub.commit("me/packs", {"README.md": b"---\nlicense: mit\ntags:\n- mine\n---\n\n# Mine\n\nWords of my own.\n"})
    cli("encode", "hf://me/base", "movie", "-o", "packs/")
    cli("compare", "packs/packs/movie.safetensors", "movie", "--json")
    figures = cli("compare", "packs/packs/movie.safetensors", "movie", "--json")
    Path("figures.json").write_text(figures)
    cli("push", "packs", "me/packs", "--figures", "movie=figures.json")
    hub_tree.clear_listings()
    cli("encode", "hf://me/base", "tweets", "-o", "packs/")
    cli("push", "packs", "me/packs")
    page = hub.files("me/packs")["README.md"].decode()
    for text in (
        "license: mit",
        "- mine",
        "\n- dtscodec\n",
        "# Mine",
        "Words of my own.",
        "| `movie` |",
        "| `tweets` |",
    ):
        assert page.count(text) == 1, text
    error = json.loads(figures)["relative_error"]
    assert f"| {error:.3g} |" in page


def test_a_base_that_a_pack_does_not_remember_must_be_named_and_fit(cli: Cli, hub: LoopbackHub) -> None:
    cli("encode", "base", "movie", "-o", "packs/")
    assert "name it with --base hf://user/repo" in cli.fails("push", "packs", "me/packs")
    hub.create("me/other")
    write_model(Path("other"), {"encoder.weight": torch.zeros(3, 3)})
    hub.commit("me/other", {"model.safetensors": Path("other/model.safetensors").read_bytes()})
    assert "base-tensor" in cli.fails("push", "packs", "me/packs", "--base", "hf://me/other")
    assert "me/packs" not in hub.repositories
    cli("push", "packs", "me/packs", "--base", "hf://me/base")
    hub_tree.clear_listings()
    cli("decode", "hf://me/packs/movie", "-o", "out")
    cli("decode", "packs/packs/movie.safetensors", "--base", "base", "-o", "local")
    assert snapshot(Path("out")) == snapshot(Path("local"))


def test_packs_of_several_bases_share_a_repository_if_they_remember_them(cli: Cli, pushed: LoopbackHub) -> None:
    pushed.create("me/second")
    pushed.commit("me/second", {path.name: path.read_bytes() for path in Path("tweets").iterdir()})
    cli("encode", "hf://me/second", "other=amazon", "-o", "other.safetensors", *CODED)
    cli("push", "other.safetensors", "me/packs")
    cli("encode", "tweets", "movie", "-o", "forgets.safetensors", *CODED)
    line = cli.fails("push", "forgets.safetensors", "me/packs", "--base", "hf://me/second")
    assert "push them to a repository of their own" in line
    hub_tree.clear_listings()
    for task, base in (("other", "tweets"), ("amazon", "base")):
        cli("decode", f"hf://me/packs/{task}", "-o", f"out-{task}")
        with dtscodec.open(f"hf://me/packs/{task}") as pack, dtscodec.decode(pack, base) as state:
            assert_equal(dict(state), load(f"out-{task}/model.safetensors"))


def test_packs_of_two_commits_of_one_base_are_pushed_together(cli: Cli, hub: LoopbackHub) -> None:
    cli("encode", "hf://me/base", "movie", "-o", "packs/")
    hub.commit("me/base", {"model.safetensors": Path("tweets/model.safetensors").read_bytes()})
    hub_tree.clear_listings()
    cli("encode", "hf://me/base", "amazon", "-o", "packs/", *CODED)
    cli("push", "packs", "me/packs")
    index = json.loads(hub.files("me/packs")["dtscodec.json"])
    assert index["base"] == f"hf://me/base@{hub.history('me/base')[0].sha}"  # Of the first task.
    for task, base in (("movie", "base"), ("amazon", "tweets")):
        cli("decode", f"hf://me/packs/{task}", "-o", f"out-{task}")
        cli("decode", f"packs/packs/{task}.safetensors", "--base", base, "-o", f"local-{task}")
        assert snapshot(Path(f"out-{task}")) == snapshot(Path(f"local-{task}"))


def test_a_pack_may_remember_a_repository_without_a_commit(
    cli: Cli, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "dtscodec.checkpoints.base.BaseRef", lambda digest, repo=None, commit=None: BaseRef(digest, repo)
    )
    cli("encode", "hf://me/base", "movie", "-o", "packs/")
    cli("push", "packs", "me/packs")
    commit = hub.history("me/base")[0].sha
    assert json.loads(hub.files("me/packs")["dtscodec.json"])["base"] == f"hf://me/base@{commit}"


def test_a_branch_that_is_not_there_begins_with_what_the_main_one_has(cli: Cli, pushed: LoopbackHub) -> None:
    main = pushed.files("me/packs")
    cli("encode", "hf://me/base", "more=movie", "-o", "more.safetensors")
    cli("push", "more.safetensors", "me/packs", "--revision", "try")
    assert pushed.files("me/packs") == main
    hub_tree.clear_listings()
    for task in ("more", "movie"):
        cli("decode", f"hf://me/packs@try/{task}", "-o", task + "-out")


def test_a_fine_tune_on_the_hub_is_encoded_as_a_local_one(cli: Cli, hub: LoopbackHub) -> None:
    hub.create("me/movie")
    hub.commit("me/movie", {path.name: path.read_bytes() for path in Path("movie").iterdir()})
    cli("encode", "hf://me/base", "hf://me/movie", "-o", "a")
    cli("encode", "hf://me/base", "movie", "-o", "b")
    assert Path("a").read_bytes() == Path("b").read_bytes()


@pytest.mark.parametrize("task", ["a/b", "..", ".hidden", "a\nb", "a@b", "a|b", "a%2fb", "x" * 300, "\U0001f600" * 60])
def test_a_task_that_is_no_name_of_a_file_is_not_pushed(cli: Cli, hub: LoopbackHub, task: str) -> None:
    dtscodec.encode("hf://me/base", "movie", "pack", task=task)
    assert "expected a task that can be the name of a file" in cli.fails("push", "pack", "me/packs")
    assert "me/packs" not in hub.repositories


def test_a_task_whose_name_is_no_text_is_not_pushed(cli: Cli, hub: LoopbackHub) -> None:
    dtscodec.encode("base", "movie", "a\udcff", dtscodec.EncodeConfig(raw=("*",)))
    with pytest.raises(ConfigError, match="expected a task"):
        dtscodec.push("a\udcff", "me/packs", base="hf://me/base")


@pytest.mark.parametrize("repo", ["me/pa--cks", "me/.packs", "me/p cks", "me/packs.git", f"me/{'x' * 200}"])
def test_a_name_that_no_repository_can_have_is_an_error_as_such(cli: Cli, hub: LoopbackHub, repo: str) -> None:
    cli("encode", "hf://me/base", "movie", "-o", "packs/")
    hub.requests.clear()
    line = cli.fails("push", "packs", repo)
    assert "expected user/name as the Hub takes it" in line
    assert "network" not in line
    assert not hub.requests
    with pytest.raises(ConfigError, match="no user"):
        dtscodec.push("packs", "packs")


def test_a_models_own_configuration_stays(cli: Cli, hub: LoopbackHub) -> None:
    config = hub.files("me/base")["config.json"]
    cli("encode", "hf://me/base", "movie", "-o", "packs/")
    cli("push", "packs", "me/base")
    assert hub.files("me/base")["config.json"] == config
    cli("decode", "hf://me/base/movie", "-o", "out")  # Its own push is seen at once.


def test_a_pack_that_was_removed_behind_the_index_is_pushed_again(cli: Cli, pushed: LoopbackHub) -> None:
    pushed.commit("me/packs", {"packs/movie.safetensors": None})
    assert set(cli.json("push", "packs", "me/packs")["files"]) == {"packs/movie.safetensors"}


@pytest.mark.parametrize("damage", ["begin", "end", "twice"])
def test_a_page_whose_marks_are_damaged_is_left_alone(cli: Cli, pushed: LoopbackHub, damage: str) -> None:
    page = pushed.files("me/packs")["README.md"].decode()
    damaged = {"begin": page.replace(BEGIN, ""), "end": page.replace(END, "mine"), "twice": page + page}[damage]
    pushed.commit("me/packs", {"README.md": damaged.encode()})
    cli("encode", "hf://me/base", "more=movie", "-o", "more.safetensors")
    assert "restore them" in cli.fails("push", "more.safetensors", "me/packs")
    assert pushed.files("me/packs")["README.md"] == damaged.encode()


def test_the_hub_is_no_output_of_encode_and_decode(cli: Cli) -> None:
    assert "use dtscodec push" in cli.fails("encode", "base", "movie", "-o", "hf://me/packs/movie")
    cli("encode", "base", "movie", "-o", "pack")
    assert "expected a local path" in cli.fails("decode", "pack", "--base", "base", "-o", "hf://me/out")


# Failures


FAULTS = {
    "status": {"status": 500, "times": 99},
    "close": {"close": True, "times": 99},
    "cut": {"cut": 10, "times": 99},
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("where", ["/commit/", "/preupload/", "/objects/batch", "PUT "])
def test_a_push_that_fails_leaves_the_repository_as_it_was(
    cli: Cli, pushed: LoopbackHub, fault: dict[str, int], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # The client waits longer and longer.
    if "cut" in fault and where == "/commit/":
        return  # The commit is made, and only the answer is lost.
    before = pushed.files("me/packs")
    cli("encode", "hf://me/base", "movie", "-o", "packs/", "--rank", "1", "--force")
    pushed.fail(where, **fault)  # type: ignore[arg-type]
    if "cut" in fault and where == "PUT ":
        return  # An empty answer has nothing to cut.
    line = cli.fails("push", "packs", "me/packs")
    assert line.startswith("hf://me/packs: expected to write it, got ")
    assert pushed.files("me/packs") == before


def test_somebody_elses_commit_in_between_is_not_overwritten(
    cli: Cli, pushed: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("encode", "hf://me/base", "movie", "-o", "packs/", "--rank", "1", "--force")
    commit = "dtscodec.hub.push._commit"
    from dtscodec.hub import push as module

    original = module._commit

    def late(*arguments: object) -> str:
        pushed.commit("me/packs", {"notes.txt": b"somebody else's"})
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(commit, late)
    assert "try again" in cli.fails("push", "packs", "me/packs")
    assert "notes.txt" in pushed.files("me/packs")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hf://me/none/movie", "no such repository, or a private one"),
        ("hf://me/packs@nowhere/movie", "no such branch, tag or commit"),
        ("hf://me/secret/movie", "no such repository, or a private one"),
        ("hf://datasets/me/packs/movie", "expected a model repository"),
        ("hf://me", "expected hf://user/repo"),
        ("hf://me/-bad-/movie", "expected hf://user/repo"),
        ("hf://me/a--b/movie", "expected hf://user/repo"),
        ("hf://me/packs/../movie", "expected a path within the repository"),
        ("hf://me/packs/a//movie", "expected hf://user/repo"),
        ("hf://me/packs/a\\movie", "expected a path within the repository"),
        ("hf://me/packs/" + "x" * 300, "expected a path within the repository"),
    ],
)
def test_what_is_not_there_is_one_line(
    cli: Cli, pushed: LoopbackHub, name: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed.create("me/secret", private=True)
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    for command in (["info", name], ["decode", name, "-o", "out"], ["encode", name, "movie", "-o", "out"]):
        line = cli.fails(*command)
        assert line.startswith(name)
        assert reason in line


def test_a_name_that_no_repository_can_have_is_an_error(cli: Cli, pushed: LoopbackHub) -> None:
    for name in ("me/a--b", "me/-bad-"):
        assert "expected user/name as the Hub takes it" in cli.fails("push", "packs", name)


def test_a_wrong_token_is_told_and_a_right_one_reads_what_is_private(
    cli: Cli, pushed: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed.repositories["me/packs"].private = True
    for token in ("hf_wrong", "hf_other"):
        monkeypatch.setenv("HF_TOKEN", token)
        assert "hf auth login" in cli.fails("info", "hf://me/packs/movie")
        assert "hf auth login" in cli.fails("push", "packs", "me/packs")
    monkeypatch.delenv("HF_TOKEN")
    assert "or to be made, log in with" in cli.fails("push", "packs", "me/new")
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    hub_tree.clear_listings()
    assert cli.json("info", "hf://me/packs/movie")["task"] == "movie"


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_transfer_that_fails_is_one_line_and_leaves_the_cache_sound(
    cli: Cli, pushed: LoopbackHub, fault: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    pushed.fail("GET .*(resolve|lfs|cdn)", **fault)  # type: ignore[arg-type]
    for command in (["decode", "hf://me/packs/movie", "-o", "out"], ["info", "hf://me/packs/movie"]):
        assert cli.fails(*command).startswith("hf://me/packs")
    pushed.mend() if hasattr(pushed, "mend") else pushed._faults.clear()
    cli("decode", "hf://me/packs/movie", "-o", "out")
    cli("decode", "packs/packs/movie.safetensors", "--base", "base", "-o", "local")
    assert snapshot(Path("out")) == snapshot(Path("local"))


def test_an_error_that_passes_is_not_noticed(cli: Cli, pushed: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    pushed.fail("HEAD .*resolve", status=503, times=2)
    cli("decode", "hf://me/packs/movie", "-o", "out")


def test_offline_cached_files_work_and_others_are_an_error(
    cli: Cli, pushed: LoopbackHub, hub_environment: dict[str, str]
) -> None:
    def command(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        run = [sys.executable, "-m", "dtscodec", *arguments]
        return subprocess.run(
            run, env={**hub_environment, "PYTHONPATH": str(ROOT), **more}, capture_output=True, text=True
        )

    assert command("decode", "hf://me/packs/movie", "-o", "online").returncode == 0
    done = command("decode", "hf://me/packs/movie", "-o", "offline", HF_HUB_OFFLINE="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert snapshot(Path("online")) == snapshot(Path("offline"))
    for name in ("hf://me/packs/tweets", "hf://me/other/movie"):
        done = command("decode", name, "-o", "none", HF_HUB_OFFLINE="1")
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith(f"dtscodec: {name.rpartition('/')[0]}")
        assert "without HF_HUB_OFFLINE" in done.stderr
    assert not Path("none").exists()


def test_a_hub_that_does_not_answer_is_told_in_time(
    cli: Cli, pushed: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_client, "WAIT_SECONDS", 0.2)
    pushed.fail("/api/models/", wait=2, times=9)
    for command in (["info", "hf://me/packs/movie"], ["push", "packs", "me/packs"]):
        assert cli.fails(*command).startswith("hf://me/packs")


def test_tries_of_the_client_are_not_told_each(cli: Cli, pushed: LoopbackHub, hub_environment: dict[str, str]) -> None:
    pushed.fail("GET .*tweets", cut=10, times=99)
    run = [sys.executable, "-m", "dtscodec", "decode", "hf://me/packs/tweets", "-o", "none"]
    done = subprocess.run(run, env={**hub_environment, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "http" not in done.stderr


PROGRAM = """
import sys, dtscodec, torch
with dtscodec.open("hf://me/packs/movie") as pack:
    assert pack.delta("encoder.weight").any()
with dtscodec.decode("hf://me/packs/tweets") as state:
    torch.save(dict(state), "state.pt")
"""


def test_a_new_process_needs_only_names(cli: Cli, pushed: LoopbackHub, hub_environment: dict[str, str]) -> None:
    environment = {**hub_environment, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-W", "error", "-c", PROGRAM], env=environment, check=True)
    cli("decode", "packs/packs/tweets.safetensors", "--base", "base", "-o", "local.safetensors")
    assert_equal(torch.load("state.pt"), load("local.safetensors"))


def test_errors_of_the_library_are_its_own(cli: Cli, pushed: LoopbackHub) -> None:
    with pytest.raises(PackNotFoundError):
        dtscodec.open("hf://me/none/movie")
    with pytest.raises(CheckpointError):
        dtscodec.Base("hf://me/none")
    with pytest.raises(OutputError):
        dtscodec.push("packs", "other/packs")
    with pytest.raises(ConfigError):
        dtscodec.push("packs", "me/packs", figures={"none": {}})
