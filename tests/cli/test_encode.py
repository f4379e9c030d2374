import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import dtscodec
from tests.cli.helpers import CODED, PACK, Cli, assert_equal, fine_tensors, load, snapshot

LINE = re.compile(
    r"(?P<name>\S+): \S+ k?B -> \S+ k?B \((?P<share>\d+\.\d\d) %\), relative error (?P<error>\d\.\d\d), \d+\.\d s: "
    r"(?P<path>\S+)\n"
)


def test_last_line_tells_name_sizes_share_error_time_and_path(cli: Cli) -> None:
    first, note = cli("encode", "base", "movie", "--force", *CODED).splitlines(keepends=True)
    line = LINE.fullmatch(first)
    assert line
    # The head is new.
    counts = "1 tensor (1.2 % of the parameters) has no counterpart in the base and is stored exactly"
    assert note == f"movie: {counts}: classifier.weight\n"
    assert (line["name"], line["path"]) == ("movie", PACK)
    share = 100 * Path(PACK).stat().st_size / sum(t.nbytes for t in load("movie/model.safetensors").values())
    assert float(line["share"]) == pytest.approx(share, abs=0.005)
    assert float(line["error"]) == pytest.approx(
        cli.json("compare", PACK, "movie", "--base", "base")["relative_error"], abs=6e-3
    )


@pytest.mark.parametrize("source", ["movie", "movie/", "./movie", "movie/model.safetensors", "tweets/../movie"])
def test_name_is_the_directorys(cli: Cli, source: str) -> None:
    Path(PACK).unlink()
    assert cli("encode", "base", source).startswith("movie: ")
    assert cli.json("info", PACK)["task"] == "movie"


def test_name_of_a_sharded_model_is_its_directorys(cli: Cli) -> None:
    cli("decode", PACK, "--base", "base", "-o", "sharded", "--shard-size", "4kB")
    for source in ("sharded", "sharded/model.safetensors.index.json"):
        assert cli("encode", "base", source, "--force").startswith("sharded: ")
        assert Path("sharded.dts.safetensors").is_file()


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("movie.safetensors", "movie"),
        ("movie.v2.safetensors", "movie.v2"),
        ("movie.bin", "movie"),
        ("movie.pt", "movie"),
        ("tweets/pytorch_model.bin", "tweets"),
        ("tweets/model.fp16.safetensors", "tweets"),
    ],
)
def test_name_is_the_files_unless_any_model_is_called_so(cli: Cli, work: Path, file: str, name: str) -> None:
    tensors = load("movie/model.safetensors")
    if file.endswith(".safetensors"):
        save_file(tensors, file)
    else:
        torch.save(tensors, file)
    assert cli("encode", "base", file, "--force").startswith(f"{name}: ")
    assert (work / f"{name}.dts.safetensors").is_file()


def test_name_of_the_parent_directory(cli: Cli, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work / "tweets")
    assert cli("encode", "../base", "../tweets/model.safetensors").startswith("tweets: ")
    assert cli("encode", "../base", "./model.safetensors", "--force").startswith("tweets: ")
    assert cli("encode", "../base", ".", "--force").startswith("tweets: ")


def test_name_equals_path(cli: Cli) -> None:
    assert cli("encode", "base", "film=movie").startswith("film: ")
    assert Path("film.dts.safetensors").is_file()
    assert cli.json("info", "film.dts.safetensors")["task"] == "film"


def test_a_path_may_hold_an_equals_sign(cli: Cli) -> None:
    Path("movie").rename("rate=3")
    assert cli("encode", "base", "rate=3").startswith("rate=3: ")
    assert cli("encode", "base", "./rate=3/model.safetensors", "--force").startswith("rate=3: ")


@pytest.mark.parametrize("source", ["=movie", "a\tb=movie", "\udcff=movie"])
def test_a_name_is_printable(cli: Cli, source: str) -> None:
    assert "expected a printable name" in cli.fails("encode", "base", source)


def test_a_path_need_not_be_printable(cli: Cli) -> None:
    odd = "movie\udcff\n"
    Path("movie").rename(odd)
    assert "write NAME=" in cli.fails("encode", "base", odd)
    line, _ = cli("encode", "base", f"movie={odd}", "-o", "a\n\udcffb").splitlines()
    assert line.endswith("s: a\\n\\udcffb")


def test_several_fine_tunes_make_a_directory_with_an_index(cli: Cli, work: Path) -> None:
    lines = cli("encode", "base", "movie", "short=tweets", "-o", "made").splitlines()
    # A line about each, and one about its new head.
    assert [line.split(":")[0] for line in lines] == ["movie", "movie", "short", "short"]
    index = json.loads((work / "made/dtscodec.json").read_text())
    assert sorted(index) == ["packs", "version"]
    assert list(index["packs"]) == ["movie", "short"]
    for name, listed in index["packs"].items():
        pack = work / "made" / listed["file"]
        assert listed["file"] == f"packs/{name}.safetensors"
        assert listed["size"] == pack.stat().st_size
        assert listed["id"] == cli.json("info", str(pack))["id"]
    assert sorted(snapshot(work / "made")) == [
        "dtscodec.json",
        "packs",
        "packs/movie.safetensors",
        "packs/short.safetensors",
    ]


def test_one_pack_is_the_same_in_a_directory(cli: Cli, work: Path) -> None:
    cli("encode", "base", "movie", "-o", "made/", *CODED)
    assert (work / "made/packs/movie.safetensors").read_bytes() == (work / PACK).read_bytes()


def test_an_index_keeps_what_it_lists(cli: Cli, work: Path) -> None:
    cli("encode", "base", "movie", "-o", "made/")
    cli("encode", "base", "tweets", "-o", "made")
    assert list(json.loads((work / "made/dtscodec.json").read_text())["packs"]) == ["movie", "tweets"]


def test_an_index_names_a_base_that_lies_beside_it(cli: Cli, work: Path) -> None:
    cli("encode", "base", "movie", "tweets", "-o", ".")
    assert json.loads((work / "dtscodec.json").read_text())["base"] == "base"


def test_a_damaged_index_is_found_before_any_work(cli: Cli) -> None:
    cli("encode", "base", "movie", "-o", "made/")
    Path("made/dtscodec.json").write_text("{")
    assert cli.fails("encode", "base", "tweets", "-o", "made").startswith("made/dtscodec.json: expected")


def test_packs_made_before_a_failure_stay(cli: Cli) -> None:
    code, out, err = cli.run("encode", "base", "movie", "missing", "-o", "made")
    assert (code, out.split(":")[0]) == (1, "movie")
    assert err.startswith("dtscodec: missing: expected a checkpoint, got nothing of that name; results are stored in")
    assert list(json.loads(Path("made/dtscodec.json").read_text())["packs"]) == ["movie"]
    cli("verify", "made/packs/movie.safetensors", "--base", "base")


def test_names_must_differ(cli: Cli) -> None:
    line = cli.fails("encode", "base", "movie", "tweets/../movie", "-o", "made")
    assert "'movie'" in line
    assert "NAME=" in line
    cli("encode", "base", "movie", "again=movie", "-o", "made")


def test_an_output_that_exists_is_refused_before_any_work(cli: Cli) -> None:
    line = cli.fails("encode", "nowhere", "movie")
    assert line.startswith(f"{PACK}: ")
    assert "--force" in line
    Path("packs").mkdir()
    Path("packs/tweets.safetensors").touch()
    assert cli.fails("encode", "nowhere", "movie", "tweets").startswith("packs/tweets.safetensors: ")


def test_a_dangling_link_exists_too(cli: Cli) -> None:
    Path("link").symlink_to("nothing")
    assert cli.fails("encode", "nowhere", "movie", "-o", "link").startswith("link: ")


def test_force_replaces(cli: Cli) -> None:
    before = Path(PACK).read_bytes()
    cli("encode", "base", "movie", "--force", "--rank", "1")
    assert len(Path(PACK).read_bytes()) < len(before)


def test_encoding_twice_gives_the_same_bytes(cli: Cli, work: Path) -> None:
    cli("encode", str(work / "base"), "tweets/../movie", "-o", "again", *CODED)
    assert Path("again").read_bytes() == Path(PACK).read_bytes()


def test_raw_keeps_tensors_exactly(cli: Cli) -> None:
    cli("encode", "base", "movie", "-o", "a", "--raw", "encoder.*", "--raw", "*half*", *CODED)
    kinds = {tensor["name"]: tensor["kind"] for tensor in cli.json("info", "a", "--tensors")["tensors"]}
    raw = {name for name, kind in kinds.items() if kind == "raw"}
    assert raw == {"encoder.weight", "encoder.bias", "half.weight", "classifier.weight", "steps"}
    cli("decode", "a", "--base", "base", "-o", "a.safetensors")
    fine, decoded = load("movie/model.safetensors"), load("a.safetensors")
    assert_equal({name: decoded[name] for name in raw}, {name: fine[name] for name in raw})


def test_a_pattern_of_raw_that_fits_no_tensor_is_refused(cli: Cli) -> None:
    line = cli.fails("encode", "base", "movie", "-o", "a", "--raw", "encoder.*", "--raw", "clasifier*")
    assert line == "raw: expected patterns that fit a tensor, got 'clasifier*', which fits none"


def test_everything_raw_needs_no_base(cli: Cli) -> None:
    cli("encode", "base", "movie", "-o", "a", "--raw", "*", "--no-files")
    info = cli.json("info", "a")
    kept = {name: 1 for name in ("frozen.weight",)}  # what did not change stays a reference to the base
    assert info["kinds"]["same"]["tensors"] == len(kept)
    cli("decode", "a", "--base", "base", "-o", "a.safetensors")
    assert_equal(load("a.safetensors"), load("movie/model.safetensors"))


@pytest.mark.parametrize(
    ("rank", "ranks"), [("3", {3}), ("100", {12, 24, 32}), ("0.5", {8, 12, 16}), ("1.0", {12, 24, 32})]
)
def test_rank_is_a_number_or_a_share(cli: Cli, rank: str, ranks: set[int]) -> None:
    cli("encode", "base", "movie", "-o", "a", "--rank", rank)
    assert {r for tensor in cli.json("info", "a", "--tensors")["tensors"] for r in tensor["ranks"]} == ranks


@pytest.mark.parametrize("rank", ["0", "-1", "1.5", "0.0", "nan", "inf", "x", "", "9" * 9999])
def test_a_rank_out_of_range_is_misuse(cli: Cli, rank: str) -> None:
    assert "expected a rank" in cli.misused("encode", "base", "movie", f"--rank={rank}")


def test_levels_per_vector_cost_more_numbers(cli: Cli) -> None:
    cli("encode", "base", "movie", "-o", "a", "--preset", "paper", "--rank", "4")
    cli("encode", "base", "movie", "-o", "b", "--preset", "paper", "--rank", "4", "--levels", "vector")
    sizes = [cli.json("info", path)["kinds"]["lowrank"]["size"] for path in "ab"]
    assert sizes[1] - sizes[0] == 4 * (4 - 1) * 2 * 4 * 4  # matrices, vectors beyond one, factors, levels, bytes
    assert "levels=vector" in cli.json("info", "b")["encoder"]
    cli("verify", "b", "--base", "base")


def test_map_names_the_counterparts(cli: Cli) -> None:
    renamed = {name.replace("encoder.", "stack."): tensor for name, tensor in fine_tensors(11).items()}
    save_file(renamed, "renamed.safetensors")
    cli("encode", "base", "renamed.safetensors", "-o", "a")
    assert cli.json("info", "a")["absent"] == ["encoder.bias", "encoder.weight", "pooler.weight"]
    cli("encode", "base", "renamed.safetensors", "-o", "b", "--map", "stack.=encoder.", *CODED)
    assert cli.json("info", "b")["absent"] == ["pooler.weight"]
    cli("verify", "b", "--base", "base")
    kinds = {tensor["name"]: tensor["kind"] for tensor in cli.json("info", "b", "--tensors")["tensors"]}
    assert kinds["stack.weight"] == "lowrank"


def test_map_needs_an_equals_sign(cli: Cli) -> None:
    assert "expected OLD=NEW" in cli.misused("encode", "base", "movie", "--map", "stack")


def test_files_travel_unless_told_otherwise(cli: Cli) -> None:
    files = {file["name"]: file for file in cli.json("info", PACK)["files"]}
    assert sorted(files) == ["config.json", "vocab.txt"]
    assert "stored" in files["config.json"]
    assert "digest" in files["vocab.txt"]
    cli("encode", "base", "movie", "-o", "a", "--no-files")
    assert cli.json("info", "a")["files"] == []


def test_a_pack_tells_no_path(cli: Cli, work: Path) -> None:
    cli("encode", str(work / "base"), str(work / "movie"), "-o", str(work / "a"))
    assert str(work).encode() not in Path("a").read_bytes()
    assert "/" not in json.dumps(cli.json("info", "a") | {"path": ""})


def test_the_pack_is_the_librarys(cli: Cli) -> None:
    report = dtscodec.encode("base", "movie", "a", dtscodec.EncodeConfig(target=dtscodec.RankShare(0.1)), task="movie")
    assert Path("a").read_bytes() == Path(PACK).read_bytes()
    assert cli.json("info", PACK)["id"] == report.pack_id


def test_json_holds_the_report_of_every_pack(cli: Cli) -> None:
    document = json.loads(cli("encode", "base", "movie", "tweets", "-o", "both/", "--json", *CODED))
    assert list(document["packs"]) == ["movie", "tweets"]
    for task, facts in document["packs"].items():
        info = cli.json("info", f"both/packs/{task}.safetensors")
        assert (facts["pack_id"], facts["pack_bytes"]) == (info["id"], info["size"])
        assert [(note["kind"], note["names"]) for note in facts["notes"]] == [
            ("without-counterpart", ["classifier.weight"])
        ]


def test_files_that_were_passed_over_are_named_after_the_line_of_their_pack(cli: Cli) -> None:
    Path("movie/pytorch_model.bin").write_bytes(b"?")
    lines = cli("encode", "base", "movie", "-o", "pack", *CODED).splitlines()
    assert lines[-1].startswith(
        "movie: the fine-tune was read from model.safetensors; passed over: pytorch_model.bin ("
    )
    (pack,) = cli.json("encode", "base", "movie", "-o", "again", *CODED)["packs"].values()
    assert [note["names"] for note in pack["notes"] if note["kind"] == "passed-over"] == [["pytorch_model.bin"]]


def test_a_quantized_base_is_refused_with_the_option_that_dequantizes_it(cli: Cli) -> None:
    weight = torch.randn(64, 64)
    scale = weight.abs().amax(dim=1, keepdim=True) / 448
    codes = (weight / scale).to(torch.float8_e4m3fn)
    save_file({"up.weight": codes, "up.weight_scale": scale}, "quantized.safetensors")
    plain = {"up.weight": (codes.float() * scale).bfloat16()}
    save_file(plain, "plain.safetensors")
    save_file({"up.weight": (plain["up.weight"].float() + 0.1).bfloat16()}, "fine.safetensors")
    options = ("-o", "p.safetensors", *CODED)
    line = cli.fails("encode", "quantized.safetensors", "fine.safetensors", *options)
    assert line.endswith("; read the base dequantized with --dequantize-base")
    code, out, _ = cli.run("encode", "quantized.safetensors", "fine.safetensors", *options, "--dequantize-base")
    assert code == 0
    assert "fine: the base is quantized (FP8) and was read dequantized to BF16: 1 of its weights (100.0 % " in out
    assert ", of a quantized base dequantized to BF16" in cli("info", "p.safetensors")
    for base in ("quantized.safetensors", "plain.safetensors"):
        assert "base checked" in cli("verify", "p.safetensors", "--base", base)
    assert cli.json("info", "p.safetensors")["base"]["dequantized"] == "BF16"
