"""Trace which files of the package run while one weight matrix goes through the codec.

One matrix of a tiny Llama is changed by a delta of rank 2. It is encoded, decoded, attached to a running model and
exported to PEFT, in that order and with default settings. A file counts for a stage if a function of it is called;
importing a module does not count. The size of the union says how many files a reader opens to follow one matrix.

    python -m benchmarks.traced_files [--commands] [--functions] [--json] [--package-root DIR]

With ``--commands`` encoding, decoding and exporting are run as the command line runs them. With ``--package-root`` the
package of another checkout is traced, so that one script compares two commits.
"""

import argparse
import contextlib
import inspect
import io
import json
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

MATRIX = "model.layers.0.self_attn.q_proj.weight"
STAGES = ("encode", "decode", "attach", "export")


class FileTrace:
    """Record the files of a package whose functions are called.

    Parameters
    ----------
    root : Path
        Directory of the package.

    Attributes
    ----------
    files : set of str
        Files whose functions were called, relative to `root`.
    functions : dict
        Names of the functions that were called, by file.
    """

    def __init__(self, root: Path) -> None:
        self._root = f"{root}/"
        self._imports = 0
        self.files: set[str] = set()
        self.functions: dict[str, set[str]] = {}

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Record inside the block, in this thread and in those that it starts."""
        threading.setprofile(self._on_event)
        sys.setprofile(self._on_event)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def _on_event(self, frame: FrameType, event: str, _: Any) -> None:
        if event not in ("call", "return"):
            return
        code = frame.f_code
        if code.co_name == "<module>":
            # Functions that run while a module is imported, such as decorators, belong to the import.
            self._imports += 1 if event == "call" else -1
        elif event == "call" and not self._imports and self._is_ours(code):
            file = code.co_filename.removeprefix(self._root)
            self.files.add(file)
            self.functions.setdefault(file, set()).add(getattr(code, "co_qualname", code.co_name))

    def _is_ours(self, code: CodeType) -> bool:
        # Bodies of classes are no functions: their local names are not optimized.
        return code.co_filename.startswith(self._root) and bool(code.co_flags & inspect.CO_OPTIMIZED)


def stages(folder: Path, as_commands: bool = False) -> dict[str, Callable[[], object]]:
    """Return what each stage runs, in order; each uses what the ones before it wrote to `folder`.

    Parameters
    ----------
    folder : Path
        An empty directory.
    as_commands : bool
        Run all but `attach` by the command line's `main`, in this process.
    """
    import torch

    import dtscodec

    base, fine, pack = folder / "base", folder / "fine", folder / "pack.safetensors"
    model = _write_models(base, fine)
    ids = torch.arange(8).reshape(1, 8)

    def encode() -> None:
        dtscodec.encode(base, fine, pack)

    def decode() -> None:
        with dtscodec.decode(pack, base) as decoded:
            dict(decoded)

    def attach() -> None:
        with torch.no_grad(), dtscodec.attach(model, {"task": pack}) as attached, attached.serve("task"):
            model(ids)

    def export() -> None:
        dtscodec.export_adapter(pack, folder / "adapter", base)

    runs: list[Callable[[], object]] = [encode, decode, attach, export]
    if as_commands:
        runs[0] = _command("encode", base, fine, "-o", pack)
        runs[1] = _command("decode", pack, "--base", base, "-o", folder / "decoded")
        runs[3] = _command("export", pack, "--to", "peft", "--base", base, "-o", folder / "adapter")
    return dict(zip(STAGES, runs, strict=True))


def _command(*arguments: str | Path) -> Callable[[], object]:
    from dtscodec.cli.main import main as command

    def run() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            code = command([str(argument) for argument in arguments])
        assert code == 0, f"dtscodec {arguments[0]}: expected exit code 0, got {code}"

    return run


def _write_models(base: Path, fine: Path) -> Any:
    """Write a one-layer Llama and a fine-tune in which one matrix differs; return the base."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=160, hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config).train(False)
    model.save_pretrained(base)
    tuned = LlamaForCausalLM(config)
    tuned.load_state_dict(model.state_dict())
    with torch.no_grad():
        tuned.get_parameter(MATRIX).add_(0.01 * torch.randn(64, 2) @ torch.randn(2, 64))
    tuned.save_pretrained(fine)
    return model


def trace(as_commands: bool = False) -> dict[str, FileTrace]:
    """Run all stages on a temporary model; return what each has called."""
    import dtscodec

    root = Path(dtscodec.__file__).parent
    traces = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, run in stages(Path(folder), as_commands).items():
            traces[name] = FileTrace(root)
            with traces[name].recording():
                run()
    return traces


def main(argv: Sequence[str] | None = None) -> int:
    """Print the files of each stage, and how many there are in all; see ``--help``."""
    parser = argparse.ArgumentParser(description="Trace which package files run for one weight matrix.")
    parser.add_argument("--package-root", type=Path, metavar="DIR", help="a checkout whose package is traced")
    parser.add_argument("--commands", action="store_true", help="run all but attach as commands")
    parser.add_argument("--functions", action="store_true", help="print the functions of each file, too")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(argv)
    if options.package_root:
        sys.path.insert(0, str(options.package_root.resolve()))
    traces = trace(options.commands)
    union = sorted(set().union(*(traced.files for traced in traces.values())))
    if options.json:
        found = {name: sorted(traced.files) for name, traced in traces.items()}
        print(json.dumps({"stages": found, "union": union, "count": len(union)}, indent=1))
        return 0
    for name, traced in traces.items():
        print(f"{name}: {len(traced.files)} files")
        for file in sorted(traced.files):
            called = f"  {', '.join(sorted(traced.functions[file]))}" if options.functions else ""
            print(f"  {file}{called}")
    print(f"union: {len(union)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
