"""The command line: one subcommand per task, errors as one line, exit codes 0, 1 and 2."""

import argparse
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any, NoReturn

from dtscodec.cli import (
    collect,
    compare,
    console,
    decode,
    encode,
    export,
    family,
    fit,
    fuse,
    import_,
    info,
    merge,
    push,
    report,
    verify,
)
from dtscodec.cli.remedies import spell_option
from dtscodec.errors import DtsError
from dtscodec.storage import hub_client
from dtscodec.version import __version__

COMMANDS = (encode, decode, info, verify, compare, fit, collect, merge, family, fuse, report, export, import_, push)

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


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    root = argparse.ArgumentParser(
        prog="dtscodec",
        description="Store a fine-tune as a small pack against its base checkpoint, and get it back.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=f"dtscodec {__version__}")
    commands = root.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_to(commands)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = parser().parse_args(arguments)
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
        return 1  # Whoever read our output has seen enough.
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not re.search("out of memory|allocate memory", str(error)):
            raise  # For want of memory torch raises a RuntimeError.
        return _fail("out of memory: expected about eight times the largest tensor's size as float32")
    except OSError as error:
        return _fail(f"{error.filename or 'a file'}: expected to read or write it, got '{error.strerror or error}'")
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _catch_signals() -> dict[signal.Signals, Any]:
    """Let a process that is terminated, or loses its terminal, clean up as an interrupted one does."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [signal.Signals[name] for name in names]
    # What is ignored stays so: `nohup` means it.
    caught = [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    return {number: signal.signal(number, _interrupt) for number in caught}


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _fail(message: str) -> int:
    print(console.printable("dtscodec: " + " ".join(message.split())), file=sys.stderr)
    return 1
