"""Real packages on real files: `zipnn` 0.5.3 (lossless) and `sparse-llm` 0.0.5, each in a process of its own.

They are no requirement of the benchmark: `pip install zipnn==0.5.3 sparse-llm==0.0.5`, best in another virtual
environment whose interpreter is then given as ``python``, as sparse-llm installs top-level packages named `core` and
`cli`. Both were installed and run with torch 2.13.0 on Linux, Python 3.11 (zipnn is compiled on installing, sparse-
llm comes with a library for glibc 2.34). Where one is missing, the answer is `Missing`, with the reason.

zipnn compresses the exclusive or of two byte strings of equal length. Checkpoints differ in their headers and
tensors, so that the base's bytes are laid out in the fine-tune's order first, with zeros for what is new; the fine-
tune's own header is stored beside, and counted.

sparse-llm loads models by `AutoModelForCausalLM` in fp16, which would give a classifier a random head and drop the
pooler. Here that one class is replaced by plain modules of a file's tensors, also in fp16; all else is the package as
it stands, the files it writes included. Tensors that the base lacks it would lose: they are stored beside in full,
and counted. What it calls lossless is eight bits an element with one scale a tensor.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Packed:
    """Output of a package: bytes on disk, and a restored checkpoint, or None if that is equal to the fine-tune."""

    size: int
    restored: Path | None


@dataclass(frozen=True, slots=True)
class Missing:
    """A package that cannot be imported, and why."""

    reason: str


def zipnn(base: Path, finetune: Path, work: Path, python: str = sys.executable) -> Packed | Missing:
    """Lossless compression against the base; raises if the bytes that come back are not the same."""
    return _run("zipnn", base, finetune, work, python)


def sparse_llm(
    base: Path, finetune: Path, work: Path, rank: int | None = None, python: str = sys.executable
) -> Packed | Missing:
    """`sparse compress` (rank None), or `sparse compress-lossy --rank`, and what its reconstruction gives."""
    return _run("sparse-llm" if rank is None else f"sparse-llm:{rank}", base, finetune, work, python)


def _run(package: str, base: Path, finetune: Path, work: Path, python: str) -> Packed | Missing:
    # Isolated, so that the packages' `core` and `cli` cannot be taken for a neighbour of this file.
    command = [python, "-I", "-W", "ignore", __file__, package]
    paths = [str(path.resolve()) for path in (base, finetune, work)]
    # One thread: on a shared machine, the threads of sparse-llm's SVDs wait for each other for minutes.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command + paths, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{package} failed: {done.stderr.strip()[-2000:]}")
    # The packages print much of their own before.
    answer = json.loads(done.stdout.splitlines()[-1])
    if "missing" in answer:
        return Missing(f"{package}: {answer['missing']}")
    return Packed(answer["size"], Path(answer["restored"]) if answer["restored"] else None)


def _main(package: str, base: Path, finetune: Path, work: Path) -> None:
    """Run in the child; the last line printed is the answer."""
    name, _, rank = package.partition(":")
    try:
        if name == "zipnn":
            size, restored = _zipnn(base, finetune, work)
        else:
            size, restored = _sparse_llm(base, finetune, work, int(rank) if rank else None)
    except ImportError as error:
        print(json.dumps({"missing": str(error)}))
        return
    print(json.dumps({"size": size, "restored": str(restored) if restored else None}))


def _zipnn(base: Path, finetune: Path, work: Path) -> tuple[int, Path | None]:
    from zipnn import ZipNN  # type: ignore[import-not-found]

    content, other = finetune.read_bytes(), base.read_bytes()
    header, laid_out = content[: _body(content)], laid_out_as(content, other)
    coder = ZipNN(input_format="byte", bytearray_dtype="float32", delta_compressed_type="byte")
    packed = bytes(coder.compress(content[len(header) :], delta_second_data=laid_out))
    (work / "header").write_bytes(header)
    (work / "body.znn").write_bytes(packed)
    decoder = ZipNN(input_format="byte", bytearray_dtype="float32", delta_compressed_type="byte")
    if header + bytes(decoder.decompress(packed, delta_second_data=laid_out_as(header, other))) != content:
        raise ValueError("zipnn: the fine-tune that comes back is not the same")
    return len(header) + len(packed), None


def laid_out_as(content: bytes, other: bytes) -> bytes:
    """The tensors of a safetensors file in the places that another one's header gives them, zeros elsewhere.

    A tensor is found by its name, or by its name after the first dot: a classifier's encoder has a prefix.
    """
    places, sources = _tensors(content), _tensors(other)
    result = bytearray(max((entry["data_offsets"][1] for entry in places.values()), default=0))
    for name, place in places.items():
        source = sources.get(name) or sources.get(name.partition(".")[2])
        if source and (source["dtype"], source["shape"]) == (place["dtype"], place["shape"]):
            (start, stop), body = source["data_offsets"], _body(other)
            result[slice(*place["data_offsets"])] = other[body + start : body + stop]
    return bytes(result)


def _body(content: bytes) -> int:
    """Where a safetensors file's header ends."""
    return 8 + int.from_bytes(content[:8], "little")


def _tensors(content: bytes) -> dict[str, Any]:
    """Entries of a safetensors file's header."""
    entries: dict[str, Any] = json.loads(content[8 : _body(content)])
    entries.pop("__metadata__", None)
    return entries


def _sparse_llm(base: Path, finetune: Path, work: Path, rank: int | None) -> tuple[int, Path | None]:
    import transformers
    from safetensors.torch import load_file, save_file

    class Loader:
        """Stands for AutoModelForCausalLM: the parameters of a file, under the names of the fine-tune."""

        @staticmethod
        def from_pretrained(path: str, **options: Any) -> Any:
            return _module({name: tensor for name, tensor in load_file(path).items() if tensor.is_floating_point()})

    transformers.AutoModelForCausalLM = Loader  # type: ignore[assignment, misc]
    # Imported only now, since its modules take the class from transformers.
    from core import delta as package  # type: ignore[import-not-found]

    tuned, known = load_file(finetune), load_file(base)
    names = {name: name if name in known else name.partition(".")[2] for name in tuned}
    shared = {
        name: old
        for name, old in names.items()
        if old in known and known[old].shape == tuned[name].shape and tuned[name].is_floating_point()
    }
    old, new, pack, rest = (work / name for name in ("base", "finetune", "pack", "rest.safetensors"))
    save_file({name: known[source] for name, source in shared.items()}, old)
    save_file({name: tuned[name] for name in shared}, new)
    save_file({name: tensor for name, tensor in tuned.items() if name not in shared}, rest)
    if rank is None:
        package.compress_delta(str(old), str(new), str(pack), device="cpu")
        model = package.reconstruct_from_delta(str(old), str(pack), device="cpu")
    else:
        package.compress_delta_svd_full(str(old), str(new), str(pack), rank=rank)
        model = package.reconstruct_from_svd_delta(str(old), str(pack), device="cpu")
    decoded = {name: parameter.float().contiguous() for name, parameter in model.named_parameters()}
    restored = work / "restored.safetensors"
    save_file({**load_file(rest), **decoded}, restored)
    files = [rest, *(path for path in pack.rglob("*") if path.is_file())]
    return sum(path.stat().st_size for path in files), restored


def _module(tensors: dict[str, Any]) -> Any:
    """A module that does nothing but have these parameters, in fp16."""
    from torch import nn

    root = nn.Module()
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        module = root
        for step in path:
            if step not in module._modules:
                module.add_module(step, nn.Module())
            module = module.get_submodule(step)
        module.register_parameter(last, nn.Parameter(tensor.half(), requires_grad=False))
    return root


if __name__ == "__main__":
    _main(sys.argv[1], *map(Path, sys.argv[2:5]))
