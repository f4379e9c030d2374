"""Files that are stored as a change of the base's: what writes, copies, shows and restores them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as hf
from safetensors.torch import save_file

import dtscodec
from dtscodec.adapters.model_layers import read_model_layers
from dtscodec.calibration.recode import recode
from dtscodec.checkpoints.base import as_base
from dtscodec.encoding.pack_assembler import PackAssembler
from dtscodec.errors import BaseMismatchError, CheckpointError
from dtscodec.format.index import ChangedFile, FileEntry
from dtscodec.packs.directory import list_pack
from tests import models
from tests.models import VOCABULARY
from tests.support import make_pack, spec_decoder, spec_tensors

CODED = dtscodec.RankShare(0.1)


def tokenizer(truncation: object = None) -> bytes:
    vocabulary = {f"token{i:x}": i for i in range(3000)}
    return json.dumps({"truncation": truncation, "model": {"vocab": vocabulary}}, indent=2).encode()


SAVED_AGAIN = tokenizer({"direction": "Right", "max_length": 512})


def write_model(folder: Path, seed: int, data: bytes) -> Path:
    """A model directory with a small matrix and a tokenizer."""
    folder.mkdir()
    weight = torch.randn(64, 48, generator=torch.Generator().manual_seed(0))
    weight += 0.05 * torch.randn(64, 1, generator=torch.Generator().manual_seed(seed))
    save_file({"layer.weight": weight}, folder / "model.safetensors")
    (folder / "tokenizer.json").write_bytes(data)
    (folder / "config.json").write_bytes(b'{"model_type": "llama"}')
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_model(tmp_path / "base", 1, tokenizer())


@pytest.fixture
def pack(base: Path, tmp_path: Path) -> Path:
    fine = write_model(tmp_path / "fine", 2, SAVED_AGAIN)
    return make_pack(base, fine, tmp_path / "pack", target=CODED).path


def tokenizer_entry(pack: Path) -> FileEntry:
    with dtscodec.open(pack) as opened:
        return next(file for file in opened.index.files if file.name == "tokenizer.json")


def restored(pack: Path, base: Path, out: Path) -> bytes:
    with dtscodec.decode(pack, base) as decoded:
        decoded.save(out)
    return (out / "tokenizer.json").read_bytes()


def test_a_tokenizer_saved_again_takes_some_bytes_and_is_restored(base: Path, pack: Path, tmp_path: Path) -> None:
    entry = tokenizer_entry(pack)
    assert isinstance(entry, ChangedFile)
    assert entry.stored < 200
    assert restored(pack, base, tmp_path / "out") == SAVED_AGAIN


def test_the_spec_decoder_restores_the_same_files(base: Path, pack: Path) -> None:
    base_files = {path.name: path.read_bytes() for path in base.iterdir()}
    _, files = spec_decoder.decode(pack.read_bytes(), spec_tensors(base), base_files=base_files)
    with dtscodec.decode(pack, base) as decoded:
        assert decoded.files() == files == {"config.json": base_files["config.json"], "tokenizer.json": SAVED_AGAIN}


def replace_tokenizer(base: Path) -> Path:
    (base / "tokenizer.json").write_bytes(SAVED_AGAIN)
    return base


def remove_tokenizer(base: Path) -> Path:
    (base / "tokenizer.json").unlink()
    return base


def move_weights(base: Path) -> Path:
    (base.parent / "alone").mkdir()
    return Path(shutil.copy(base / "model.safetensors", base.parent / "alone"))


@pytest.mark.parametrize("spoil", [replace_tokenizer, remove_tokenizer, move_weights])
def test_another_base_directory_is_an_error_and_the_weights_can_still_be_decoded(
    base: Path, pack: Path, tmp_path: Path, spoil: Callable[[Path], Path]
) -> None:
    with dtscodec.decode(pack, spoil(base)) as decoded:
        with pytest.raises(BaseMismatchError, match=r"\.json: expected .*files=False") as caught:
            decoded.save(tmp_path / "out")
        assert caught.value.reason == "base-file"
        assert not (tmp_path / "out").exists()
        decoded.save(tmp_path / "out", files=False)
        decoded.save(tmp_path / "out.safetensors")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.safetensors"]


def test_a_base_in_memory_has_no_directory(base: Path, pack: Path) -> None:
    with dtscodec.decode(pack, models.read_all(base)) as decoded:
        with pytest.raises(BaseMismatchError, match="without a directory") as caught:
            decoded.files()
        assert caught.value.reason == "base-file"


def test_verify_checks_the_files_of_a_base_that_is_a_directory(base: Path, pack: Path) -> None:
    dtscodec.verify(pack)
    assert dtscodec.verify(pack, base).is_base_checked
    replace_tokenizer(base)
    dtscodec.verify(pack, base / "model.safetensors")
    with pytest.raises(BaseMismatchError, match=r"tokenizer\.json") as caught:
        dtscodec.verify(pack, base)
    assert caught.value.reason == "base-file"


def test_a_pack_that_needs_files_of_its_base_only_finds_it(base: Path, tmp_path: Path) -> None:
    packs = tmp_path / "all"
    packs.mkdir()
    base = base.rename(packs / "base")
    fine = write_model(tmp_path / "fine", 2, SAVED_AGAIN)
    (fine / "config.json").unlink()
    report = make_pack(base, fine, packs / "pack.safetensors", raw=("*",))
    with dtscodec.open(report.path) as opened:
        assert opened.summary.base is None
        assert [type(file) for file in opened.index.files] == [ChangedFile]
    list_pack(packs, "task", report.path, report.pack_bytes, report.pack_id, base)
    with dtscodec.decode(report.path) as decoded:
        assert decoded.files() == {"tokenizer.json": SAVED_AGAIN}


# Copies from pack to pack


def test_a_pack_of_other_streams_keeps_the_change(base: Path, pack: Path, tmp_path: Path) -> None:
    with dtscodec.open(pack) as opened, PackAssembler(tmp_path / "again", opened.reader.numbers_dtype) as assembler:
        recode(assembler, opened, {}, encoder="a fit")
    assert tokenizer_entry(tmp_path / "again") == tokenizer_entry(pack)
    assert restored(tmp_path / "again", base, tmp_path / "out") == SAVED_AGAIN


def test_a_fused_pack_keeps_the_change_of_the_pack_with_the_largest_weight(
    base: Path, pack: Path, tmp_path: Path
) -> None:
    other = make_pack(base, write_model(tmp_path / "other", 3, tokenizer("none")), tmp_path / "b", target=CODED).path
    dtscodec.fuse([pack, other], tmp_path / "fused", weights=[0.6, 0.4], target=dtscodec.Size.parse("1MB"))
    assert tokenizer_entry(tmp_path / "fused") == tokenizer_entry(pack)
    assert restored(tmp_path / "fused", base, tmp_path / "out") == SAVED_AGAIN


# What is shown


def test_info_and_report_say_that_a_file_is_a_change(
    base: Path, pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dtscodec.cli.main import main

    entry = tokenizer_entry(pack)
    assert isinstance(entry, ChangedFile)
    main(["info", str(pack)])
    size = f"{entry.stored:,} of {len(SAVED_AGAIN):,} bytes"
    text = capsys.readouterr().out
    assert f"file        tokenizer.json: stored as a change of the base's, {size}\n" in text
    assert any(line.split()[:4] == ["files", "2", "-", str(entry.stored)] for line in text.splitlines())
    main(["report", str(pack), "--base", str(base), "-o", str(tmp_path / "page.html")])
    assert "in the pack, as a change of the base" in (tmp_path / "page.html").read_text()


# Models


@pytest.fixture
def classifier(tmp_path: Path) -> tuple[Path, Path]:
    """Base and pack of a model whose configuration has hundreds of labels, so that it is stored as a change."""
    config = models.bert_config()
    config.id2label = {i: f"label {(i * 7919) % 3001} of {i * i}" for i in range(400)}
    for name, problem in (("base", "single_label_classification"), ("fine", "multi_label_classification")):
        config.problem_type = problem
        model = hf.BertForSequenceClassification(config)
        models.save(model, tmp_path / name)
    report = make_pack(tmp_path / "base", tmp_path / "fine", tmp_path / "pack", raw=("*",))
    with dtscodec.open(report.path) as opened:
        assert [type(file) for file in opened.index.files] == [ChangedFile]
    return tmp_path / "base", report.path


def test_a_model_is_loaded_by_its_changed_configuration(classifier: tuple[Path, Path]) -> None:
    base, pack = classifier
    model = dtscodec.from_pretrained(base, pack)
    assert model.config.problem_type == "multi_label_classification"
    assert model.config.vocab_size == VOCABULARY
    (base / "config.json").write_text((base / "config.json").read_text() + "\n")
    with pytest.raises(BaseMismatchError, match=r"config\.json"):
        dtscodec.from_pretrained(base, pack)


def test_layers_are_read_from_a_changed_configuration(classifier: tuple[Path, Path]) -> None:
    base, pack = classifier
    with dtscodec.open(pack) as opened, as_base(base) as whole:
        assert "classifier" in read_model_layers(None, opened, whole).kinds
        with pytest.raises(CheckpointError, match=r"expected the base.*config\.json"):
            read_model_layers(None, opened, None)
