"""Command line: ``python -m benchmarks.codes``."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from benchmarks.codes.decode_time import decode_seconds
from benchmarks.codes.errors import ErrorPoint, Sample, error_points
from benchmarks.codes.offers import OFFERS, offer_of
from benchmarks.codes.points import CodedTask, Point
from benchmarks.codes.report import codes_page
from benchmarks.codes.tasks import EncoderFineTune, LanguageFineTune
from benchmarks.common.json_lines import append_record, read_records

PARTS = ("synthetic", "errors", "behaviour")
EXPONENTS, SYNTHETIC_SIZES = (0.3, 0.5, 0.8), ("0.6%",)
"""Of power laws; and shares of such a matrix in float16."""


@dataclass(frozen=True, slots=True)
class Log:
    """What has been measured, in files of a folder; a run that was stopped goes on."""

    folder: Path

    @property
    def errors(self) -> Path:
        """Records of `ErrorPoint`."""
        return self.folder / "codes-errors.jsonl"

    @property
    def points(self) -> Path:
        """Records of `Point`."""
        return self.folder / "codes.jsonl"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing of what is asked for, and print all that is known by then; see ``--help``."""
    options = _parse(argv)
    torch.set_num_threads(1)
    log = Log(options.out)
    if "synthetic" in options.parts:
        for exponent in EXPONENTS:
            _measure_errors(f"power {exponent}", partial(Sample.power_law, exponent), log, SYNTHETIC_SIZES)
    for kind, names, cache in (
        (EncoderFineTune, options.encoder, options.encoder_cache),
        (LanguageFineTune, options.language, options.language_cache),
    ):
        if "errors" in options.parts and names:
            _measure_errors(kind.benchmark, partial(kind.sample, names[0], cache), log, options.sizes)
        if "behaviour" in options.parts:
            for name in names:
                _measure(kind, name, cache, log, options.sizes, options.offers)
    print(codes_page(read_records(log.errors, ErrorPoint), read_records(log.points, Point), decode_seconds()))
    return 0


Kind = type[EncoderFineTune] | type[LanguageFineTune]


def _measure_errors(benchmark: str, make: Callable[[], Sample], log: Log, sizes: Sequence[str]) -> None:
    known = {(point.benchmark, point.size, point.offer) for point in read_records(log.errors, ErrorPoint)}
    for size in sizes:
        missing = [offer for offer in OFFERS if (benchmark, size, offer) not in known]
        for point in error_points(benchmark, make(), size, missing) if missing else ():
            append_record(log.errors, point)
            print(point, file=sys.stderr, flush=True)


def _measure(kind: Kind, name: str, cache: Path, log: Log, sizes: Sequence[str], offers: Sequence[str]) -> None:
    known = {(point.benchmark, point.task, point.size, point.offer) for point in read_records(log.points, Point)}
    task: CodedTask | None = None
    for size in sizes:
        for offer in offers:
            if (kind.benchmark, name, size, offer) not in known:
                task = task or kind(name, cache, log.folder)
                point = task.measure(size, offer_of(offer))
                append_record(log.points, point)
                print(point, file=sys.stderr, flush=True)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.codes",
        description="Codes that the format does not have: squared error, KL at equal bytes, and time to decode. What "
        "has been measured is kept in --out. Needs a C compiler, cc.",
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure (default: all)")
    parser.add_argument("--encoder", nargs="*", default=["tweets"], help="fine-tunes of the encoder")
    parser.add_argument("--language", nargs="*", default=["style"], help="fine-tunes of the language model")
    parser.add_argument("--sizes", nargs="+", default=["0.1%", "0.5%"], help="shares of the checkpoint")
    parser.add_argument("--offers", nargs="+", choices=OFFERS, default=list(OFFERS), help="codes whose KL is measured")
    parser.add_argument("--encoder-cache", type=Path, default=Path(".demo"), help="as of benchmarks.fidelity")
    parser.add_argument("--language-cache", type=Path, default=Path(".demo/language"), help="as of benchmarks.language")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of what is kept")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
