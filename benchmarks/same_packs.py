"""Print the ids of packs made in every way there is, to show that two commits write the same bytes.

    python -m benchmarks.same_packs NAME=DIR NAME=DIR [...] [--base DIR] [--package-root DIR]

At least two fine-tunes of one base are given. Packs are made by the commands: at three sizes of every fine-tune; of the
first one with the preset `paper`, for an error and for a rank; of a merged LoRA in float32 and bfloat16; of a base that
is merged from two fine-tunes; fused from two packs; and imported from an adapter. LoRAs are drawn from a fixed seed.

Ids depend on the machine (its BLAS) and on versions of torch and zstd: run both commits on one machine, and compare
the JSON on standard output. With ``--package-root`` the package of another checkout makes the packs. Commands may
differ between commits: a merged base is made by ``dtscodec family`` where it exists, by ``dtscodec encode --merge``
elsewhere.
"""

import argparse
import contextlib
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SIZES = ("0.1%", "0.25%", "0.5%")
ERROR, RANK = "0.3", "8"
LORA_RANK, LORA_SCALE, SEED = 8, 0.01, 0
LORA_MODULES = ("query", "value")


def main(argv: Sequence[str] | None = None) -> int:
    """Make all packs and print their ids; see ``--help``."""
    options = _parse(argv)
    if options.package_root:
        sys.path.insert(0, str(options.package_root.resolve()))
    fine_tunes = dict(named.split("=", 1) for named in options.fine_tunes)
    base = options.base or _base_directory()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(all_ids(Path(base), fine_tunes, Path(folder)), indent=1))
    return 0


def all_ids(base: Path, fine_tunes: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the id of every pack, by how it was made.

    Parameters
    ----------
    base : Path
        Directory of the base, whose tensors are named as in BERT.
    fine_tunes : mapping of str to str
        Directories of fine-tunes, by name; at least two.
    folder : Path
        An empty directory for what is made.
    """
    ids: dict[str, str] = {}
    for name, fine in fine_tunes.items():
        for size in SIZES:
            ids |= _encoded(f"{name}, {size}", base, fine, folder / f"{name}-{size}", "--size", size)
    first, *_ = fine_tunes.values()
    for label, arguments in (
        ("preset paper", ["--preset", "paper"]),
        (f"error {ERROR}", ["--error", ERROR]),
        (f"rank {RANK}", ["--rank", RANK]),
        ("default size", []),
    ):
        ids |= _encoded(label, base, first, folder / label.replace(" ", "-"), *arguments)
    ids |= _merged_loras(base, folder)
    ids |= _imported(base, folder)
    ids |= _fused(base, first, [folder / f"{name}-{SIZES[1]}" for name in list(fine_tunes)[:2]], folder)
    return ids | _merged_base(dict(list(fine_tunes.items())[:2]), folder)


def _encoded(label: str, base: Path, fine: str | Path, out: Path, *arguments: str) -> dict[str, str]:
    _command("encode", base, fine, "-o", out, *arguments)
    return {label: pack_id(out)}


def pack_id(path: Path) -> str:
    """Return the id of a pack: SHA-256 over its file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


# LoRAs


def _merged_loras(base: Path, folder: Path) -> dict[str, str]:
    """Encode the base with a LoRA merged into it, in both dtypes."""
    import torch
    from safetensors.torch import load_file, save_file

    ids: dict[str, str] = {}
    for label, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        tensors = {name: tensor.to(dtype) for name, tensor in load_file(base / "model.safetensors").items()}
        merged = dict(tensors)
        for name, (down, up) in _lora(base).items():
            merged[f"{name}.weight"] = (tensors[f"{name}.weight"].float() + up @ down).to(dtype)
        files = folder / f"base-{label}.safetensors", folder / f"lora-{label}.safetensors"
        for path, state in zip(files, (tensors, merged), strict=True):
            save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
        ids |= _encoded(f"merged LoRA, {label}", *files, folder / f"lora-{label}")
    return ids


def _imported(base: Path, folder: Path) -> dict[str, str]:
    """Import an adapter as PEFT stores it."""
    from safetensors.torch import save_file

    adapter, out = folder / "adapter", folder / "imported"
    adapter.mkdir()
    settings = {
        "peft_type": "LORA", "r": LORA_RANK, "lora_alpha": LORA_RANK, "target_modules": LORA_MODULES, "bias": "none",
        "base_model_name_or_path": "base", "task_type": None, "fan_in_fan_out": False,
    }  # fmt: skip
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    tensors: dict[str, torch.Tensor] = {}
    for name, (down, up) in _lora(base).items():
        tensors |= {f"base_model.model.{name}.lora_A.weight": down, f"base_model.model.{name}.lora_B.weight": up}
    save_file(tensors, adapter / "adapter_model.safetensors")
    _command("import", adapter, "--base", base, "-o", out)
    return {"imported adapter": pack_id(out)}


def _lora(base: Path) -> "dict[str, tuple[torch.Tensor, torch.Tensor]]":
    """Return random factors A [rank, in] and B [out, rank] of each module, by its name."""
    import torch
    from safetensors.torch import load_file

    random = torch.Generator().manual_seed(SEED)
    return {
        name.removesuffix(".weight"): (
            LORA_SCALE * torch.randn(LORA_RANK, tensor.shape[1], generator=random),
            LORA_SCALE * torch.randn(tensor.shape[0], LORA_RANK, generator=random),
        )
        for name, tensor in sorted(load_file(base / "model.safetensors").items())
        if name.endswith(tuple(f".{module}.weight" for module in LORA_MODULES))
    }


# Packs of several fine-tunes


def _fused(base: Path, like: str, packs: Sequence[Path], folder: Path) -> dict[str, str]:
    out = folder / "fused"
    _command("fuse", *packs, "--like", like, "--base", base, "-o", out, "--size", SIZES[1])
    return {"fused": pack_id(out)}


def _merged_base(fine_tunes: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Merge a base from two fine-tunes, and encode both against it."""
    out = folder / "family"
    out.mkdir()
    named = [f"{name}={path}" for name, path in fine_tunes.items()]
    if _exists("family"):
        _command("family", "average", *named, "-o", out)
    else:
        _command("encode", *named, "-o", out, "--merge", "average")
    files = [out / "base.safetensors", *sorted((out / "packs").iterdir()), out / "dtscodec.json"]
    return {f"merged base, {path.relative_to(out)}": pack_id(path) for path in files}


# Commands


def _command(*arguments: str | Path) -> None:
    from dtscodec.cli.main import main as run

    words = [str(word) for word in arguments]
    start = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        code = run(words)
    if code != 0:
        raise SystemExit(f"dtscodec {' '.join(words)}: expected exit code 0, got {code}")
    print(f"{time.perf_counter() - start:6.1f} s  dtscodec {' '.join(words)}", file=sys.stderr, flush=True)


def _exists(command: str) -> bool:
    from dtscodec.cli.main import main as run

    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
        try:
            run([command, "--help"])
        except SystemExit as e:
            return e.code == 0
    return True


def _base_directory() -> Path:
    from benchmarks.demo.finetune import base_directory

    return base_directory()


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Print the ids of packs made in every way there is, as JSON.")
    parser.add_argument("fine_tunes", nargs="+", metavar="NAME=DIR", help="a fine-tune of the base; at least two")
    parser.add_argument("--base", type=Path, metavar="DIR", help="their base (default: that of the demo)")
    parser.add_argument("--package-root", type=Path, metavar="DIR", help="a checkout whose package makes the packs")
    options = parser.parse_args(argv)
    if len(options.fine_tunes) < 2 or not all("=" in named for named in options.fine_tunes):
        parser.error("expected at least two fine-tunes, each as NAME=DIR")
    return options


if __name__ == "__main__":
    sys.exit(main())
