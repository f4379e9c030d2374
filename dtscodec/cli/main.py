"""The command line: one subcommand per task, errors as one line, exit codes 0, 1 and 2."""

import argparse
import importlib
import keyword
import os
import re
import signal
import sys
import threading
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

from dtscodec.cli import console
from dtscodec.cli.remedies import spell_option
from dtscodec.errors import DtsError
from dtscodec.version import __version__

COMMANDS = {
    "encode": "store a fine-tune as a pack",
    "decode": "decode a pack to a plain checkpoint",
    "strip": "take the residual layer off an exact pack",
    "fold": "make one exact pack out of a chain of them",
    "info": "show what a pack holds",
    "verify": "check every byte of a pack, and its base",
    "compare": "measure how close a pack is to its fine-tune",
    "fit": "fit a pack to its fine-tune's outputs on samples",
    "collect": "collect the Gram matrices of a model's layer inputs",
    "merge": "merge fine-tunes into one checkpoint",
    "family": "merge fine-tunes into a base, and store each as a pack against it",
    "fuse": "make the pack of an unseen task from packs of other tasks",
    "series": "keep the checkpoints of a training run, bit for bit",
    "report": "show a pack, or a directory of packs, on one page",
    "export": "convert a pack to a LoRA adapter for PEFT, vLLM and SGLang",
    "import": "convert a LoRA adapter of PEFT to a pack",
    "push": "upload packs to a repository of the Hugging Face Hub",
}
"""Help of each command. The command is defined in the module of its name, which is imported only if it is given."""

EPILOG = """\
examples:
  dtscodec encode base/ finetune/                 write ./finetune.dts.safetensors
  dtscodec decode finetune.dts.safetensors --base base/ -o restored/
  dtscodec info finetune.dts.safetensors --tensors
  dtscodec compare finetune.dts.safetensors finetune/ --base base/
  dtscodec merge average finetune/ other/ -o merged/
  dtscodec report finetune.dts.safetensors -o report.html
  dtscodec push packs/ me/packs                   then: dtscodec decode hf://me/packs/finetune -o restored/
  dtscodec import lora/ --base base/              write ./lora.dts.safetensors
  dtscodec export lora.dts.safetensors --to peft --base base/ -o again/
  dtscodec fuse a.safetensors b.safetensors --like head.safetensors -o unseen.safetensors

exit codes: 0 done, 1 failed, 2 wrong usage
"""


def parser(commands: Collection[str] = COMMANDS) -> argparse.ArgumentParser:
    """Return the parser of the command line.

    Parameters
    ----------
    commands : collection of str
        Commands whose arguments are known; by default all. Of the others only name and help are.
    """
    root = argparse.ArgumentParser(
        prog="dtscodec",
        description="Store a fine-tune as a small pack against its base checkpoint, and get it back.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=f"dtscodec {__version__}")
    subparsers = root.add_subparsers(metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        command = subparsers.add_parser(name, help=summary)
        # Other commands need not be imported, which takes time.
        if name in commands:
            _module(name).add_to(command)
    return root


def _module(command: str) -> Any:
    """Import the module of a command."""
    name = f"{command}_" if keyword.iskeyword(command) else command
    return importlib.import_module(f"dtscodec.cli.{name}")


def _given(arguments: Sequence[str]) -> list[str]:
    """Return the command that is given, if any: options before it take no values."""
    return [argument for argument in arguments if not argument.startswith("-")][:1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words after the name of the program; by default those of this process.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser(_given(arguments)).parse_args(arguments)
    from dtscodec.storage import hub_client

    # torch, which is not imported yet, takes large tensors as huge pages then: touching fresh memory is much faster.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    hub_client.is_command = True
    handlers = _catch_signals()
    try:
        options.run(options)
        return 0
    except DtsError as error:
        return _fail(error.spelled(spell_option))
    except KeyboardInterrupt as error:
        return _fail(f"interrupted; {str(error) or 'no partial output is left'}")
    except BrokenPipeError:
        return 1  # The reader of our output, such as `head`, has closed it.
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not re.search("out of memory|allocate memory", str(error)):
            raise  # torch raises a RuntimeError when memory runs out.
        return _fail("out of memory: expected about eight times the largest tensor's size as float32")
    except OSError as error:
        return _fail(f"{error.filename or 'a file'}: expected to read or write it, got '{error.strerror or error}'")
    finally:
        # `main` may have been called by a program with handlers of its own.
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _catch_signals() -> dict[signal.Signals, Any]:
    """Make a process that is terminated, or loses its terminal, clean up like an interrupted one."""
    # Python lets only the main thread set handlers.
    if threading.current_thread() is not threading.main_thread():
        return {}
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [signal.Signals[name] for name in names]
    # Signals that are ignored remain so, as `nohup` wants it.
    caught = [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    return {number: signal.signal(number, _interrupt) for number in caught}


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _fail(message: str) -> int:
    print(console.printable("dtscodec: " + " ".join(message.split())), file=sys.stderr)
    return 1
