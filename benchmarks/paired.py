"""Time two checkouts against each other, run for run.

    python -m benchmarks.paired --a DIR --b DIR --fine-tune DIR [--base DIR] [--pairs 15]

Encoding, decoding and ``dtscodec --help`` are whole processes of the command line; a switch is `Switcher.activate` in a
process of each checkout that stays. Runs alternate (A B A B ...), so that both meet the same moments of the machine. Of
the ratios B / A of all pairs the table has the median and the 95 % interval of the sign test: of the sorted ratios the
two, equally far from both ends, between which the median lies with that probability. It needs no distribution.

Nothing else should run on the machine meanwhile.
"""

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

SWITCHES = 20
"""Switches that one time is the mean of: one alone takes some milliseconds."""
LEVEL = 0.95
LIMIT = 1.03
"""A lower bound of the ratio above this says that B is slower."""


class Comparison(NamedTuple):
    """Figures of all pairs of one piece of work.

    Parameters
    ----------
    name : str
    a, b : float
        Median seconds of each checkout.
    ratio, low, high : float
        Median of b / a over the pairs, and its interval.
    """

    name: str
    a: float
    b: float
    ratio: float
    low: float
    high: float


def compare(name: str, pairs: Sequence[tuple[float, float]]) -> Comparison:
    """Return medians and the interval of the ratio.

    Parameters
    ----------
    name : str
        What was timed.
    pairs : sequence of (float, float)
        Seconds of A and of B, pair by pair.

    >>> compare("work", [(1.0, 1.0 + i / 100) for i in range(15)])
    Comparison(name='work', a=1.0, b=1.07, ratio=1.07, low=1.03, high=1.11)
    """
    ratios = sorted(b / a for a, b in pairs)
    low, high = sign_interval(len(ratios))
    a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Comparison(name, a, b, statistics.median(ratios), ratios[low], ratios[high])


def sign_interval(count: int) -> tuple[int, int]:
    """Return places in `count` sorted values between which their median lies with a probability of `LEVEL`.

    >>> sign_interval(15), sign_interval(6)
    ((3, 11), (0, 5))
    """
    tail, place = 0.0, -1
    # The median is below the smallest value with probability 2^-n, below the next one with n 2^-n more, and so on.
    while tail + math.comb(count, place + 1) / 2**count <= (1 - LEVEL) / 2:
        place += 1
        tail += math.comb(count, place) / 2**count
    place = max(place, 0)
    return place, count - 1 - place


def timed_pairs(a: Callable[[], float], b: Callable[[], float], count: int) -> list[tuple[float, float]]:
    """Return seconds of both, taken in turn; the first turn fills caches and does not count."""
    return [(a(), b()) for _ in range(count + 1)][1:]


class Checkout:
    """One of the checkouts, and what its command does.

    Parameters
    ----------
    root : Path
        Directory that holds `dtscodec/`.
    base, fine_tune : Path
        Model directories.
    folder : Path
        Where its files go.
    """

    def __init__(self, root: Path, base: Path, fine_tune: Path, folder: Path) -> None:
        self._base, self._fine, self._folder = base, fine_tune, folder
        self._environment = {**os.environ, "PYTHONPATH": str(root.resolve())}
        folder.mkdir()
        self.pack = folder / "pack.safetensors"

    def encode(self, *arguments: str, pack: Path | None = None) -> float:
        """Encode at the default size; return the seconds of the process."""
        return self._run("encode", self._base, self._fine, "-o", pack or self.pack, "--force", *arguments)

    def decode(self) -> float:
        """Decode the pack that `encode` has made."""
        return self._run("decode", self.pack, "--base", self._base, "-o", self._folder / "decoded", "--force")

    def help(self) -> float:
        """Print the help."""
        return self._run("--help")

    def _run(self, *arguments: str | Path) -> float:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "dtscodec", *map(str, arguments)],
            env=self._environment, stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        return time.perf_counter() - start

    def info_imports_torch(self) -> bool:
        """Return whether `dtscodec info` imports torch."""
        code = "import sys; from dtscodec.cli.main import main; main(sys.argv[1:]); print('torch' in sys.modules)"
        command = [sys.executable, "-c", code, "info", str(self.pack)]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=True)
        return done.stdout.split()[-1] == "True"

    @contextmanager
    def switching(self) -> Iterator[Callable[[], float]]:
        """Start a process that switches between two packs; what is yielded returns the seconds of one switch."""
        other = self._folder / "other.safetensors"
        self.encode("--size", "0.1%", pack=other)
        command = [sys.executable, str(Path(__file__).resolve()), "--serve-switches", str(self._base), str(self._fine)]
        command += [str(self.pack), str(other)]
        with subprocess.Popen(
            command, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin
            assert process.stdout
            requests, answers = process.stdin, process.stdout

            def switch() -> float:
                requests.write("\n")
                requests.flush()
                return float(answers.readline())

            yield switch
            requests.close()


def serve_switches(base: Path, fine_tune: Path, packs: Sequence[Path]) -> None:
    """Answer each line on standard input with the mean seconds of a switch between two packs."""
    import dtscodec

    model = _model(base, fine_tune)
    switcher = dtscodec.Switcher(model)
    for number, pack in enumerate(packs):
        switcher.add(str(number), pack)
    for _ in sys.stdin:
        start = time.perf_counter()
        for turn in range(SWITCHES):
            switcher.activate(str(turn % len(packs)))
        print((time.perf_counter() - start) / SWITCHES, flush=True)


def _model(base: Path, fine_tune: Path) -> Any:
    """Return a model of the fine-tune's class with the base's weights, and the fine-tune's head."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(fine_tune)
    model: Any = AutoModelForSequenceClassification.from_pretrained(base, config=config, local_files_only=True)
    return model.train(False)


def main(argv: Sequence[str] | None = None) -> int:
    """Time both checkouts and print the table; see ``--help``."""
    options = _parse(argv)
    if options.serve_switches:
        base, fine_tune, *packs = options.serve_switches
        serve_switches(base, fine_tune, packs)
        return 0
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        checkouts = [
            Checkout(root, options.base or _base_directory(), options.fine_tune, Path(folder, name))
            for name, root in (("a", options.a), ("b", options.b))
        ]
        print("| | A, s | B, s | B / A | 95 % | |\n| --- | --- | --- | --- | --- | --- |", flush=True)
        works = {work: [getattr(checkout, work) for checkout in checkouts] for work in ("help", "encode", "decode")}
        for name, (a, b) in works.items():
            print(_row(compare(name, timed_pairs(a, b, options.pairs))), flush=True)
        a, b = (stack.enter_context(checkout.switching()) for checkout in checkouts)
        print(_row(compare("switch", timed_pairs(a, b, options.pairs))), flush=True)
        for name, checkout in zip("AB", checkouts, strict=True):
            print(f"{name}: info imports {'torch' if checkout.info_imports_torch() else 'no torch'}")
        same = checkouts[0].pack.read_bytes() == checkouts[1].pack.read_bytes()
        print(f"packs are {'the same' if same else 'NOT THE SAME'}")
    return 0


def _row(row: Comparison) -> str:
    verdict = "slower" if row.low > LIMIT else "faster" if row.high < 1 / LIMIT else ""
    interval = f"{row.low:.3f} to {row.high:.3f}"
    return f"| {row.name} | {row.a:.4f} | {row.b:.4f} | {row.ratio:.3f} | {interval} | {verdict} |"


def _base_directory() -> Path:
    from benchmarks.demo.finetune import base_directory

    return base_directory()


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time encode, decode, switch and --help of two checkouts in turn.")
    parser.add_argument("--a", type=Path, metavar="DIR", help="a checkout, such as the one before a change")
    parser.add_argument("--b", type=Path, metavar="DIR", help="the other one")
    parser.add_argument("--fine-tune", type=Path, metavar="DIR", help="model directory of a classifier")
    parser.add_argument("--base", type=Path, metavar="DIR", help="its base (default: that of the demo)")
    parser.add_argument("--pairs", type=int, default=15, metavar="N", help="default: %(default)s")
    parser.add_argument("--serve-switches", type=Path, nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if not options.serve_switches and None in (options.a, options.b, options.fine_tune):
        parser.error("expected --a, --b and --fine-tune")
    return options


if __name__ == "__main__":
    sys.exit(main())
