"""``dtscodec series``: the checkpoints of a training run in one directory."""

import argparse
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from dtscodec.cli import arguments, console
from dtscodec.cli.console import progress_bar

if TYPE_CHECKING:
    from dtscodec import Series
    from dtscodec.series.series_index import Step

EPILOG = """\
examples:
  dtscodec series append run/ checkpoint-100/ --step 100 --base base/
  dtscodec series list run/
  dtscodec series extract run/ 100 -o restored/
  dtscodec series follow run/ -o live/
"""


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command."""
    parser.description = (
        "Keep the checkpoints of a training run in one directory, each bit for bit, as an exact pack against the one "
        "before or an anchor."
    )
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add_append(actions)
    _add_list(actions)
    _add_extract(actions)
    _add_prune(actions)
    _add_follow(actions)


def _action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    text: str,
    run: Callable[[argparse.Namespace], None],
) -> argparse.ArgumentParser:
    action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    action.add_argument("directory", metavar="DIR", help="the series: a directory, local or remote")
    action.set_defaults(run=run)
    return action


def _add_append(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    action = _action(actions, "append", "store the next checkpoint of a series", append)
    action.add_argument("checkpoint", metavar="CHECKPOINT", help="the checkpoint: file, index or directory")
    action.add_argument("--step", type=arguments.step_count, help="its number (default: one after the last)")
    action.add_argument(
        "--base", help="with the first step: the checkpoint that anchors are made against (default: they need none)"
    )
    arguments.add_json(action)


def append(options: argparse.Namespace) -> None:
    """Run ``series append``."""
    from dtscodec import Series
    from dtscodec.checkpoints.open import open_checkpoint
    from dtscodec.encoding.config import EXACT
    from dtscodec.encoding.encode import passes

    start = time.perf_counter()
    series = Series(options.directory)
    with open_checkpoint(options.checkpoint) as checkpoint:
        total = sum(spec.nbytes for spec in checkpoint.specs.values())
        with progress_bar("append", passes(EXACT) * total) as progress:
            step = series.append(checkpoint, step=options.step, base=options.base, progress=progress)
    if options.json:
        console.print_json(_facts(step))
        return
    how = "an anchor" if step.base is None else f"against step {step.base}"
    sizes = f"{console.size(total)} -> {console.size(step.size)} ({console.percent(step.size, total)})"
    seconds = time.perf_counter() - start
    console.print_lines(f"step {step.step}: {sizes}, {how}, {seconds:.1f} s: {series.directory}")


def _add_list(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    arguments.add_json(_action(actions, "list", "list the steps of a series", list_steps))


def list_steps(options: argparse.Namespace) -> None:
    """Run ``series list``."""
    from dtscodec import Series

    series = Series(options.directory)
    if options.json:
        console.print_json({"base": series.index.base, "steps": [_facts(step) for step in series.steps]})
        return
    rows = [
        [
            str(step.step),
            "anchor" if step.base is None else str(step.base),
            f"{step.size:,}",
            step.content[:16],
            step.file,
        ]
        for step in series.steps
    ]
    whole = sum(step.size for step in series.steps)
    console.print_lines(
        f"series      {series.directory}",
        f"base        {series.index.base or 'none needed'}",
        f"steps       {len(rows)}, {console.size(whole)}",
        "",
        *console.table(["step", "against", "bytes", "content", "file"], rows, left=2),
    )


def _add_extract(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    action = _action(actions, "extract", "restore a step of a series, byte for byte", extract)
    action.add_argument("step", metavar="STEP", type=arguments.step_count, help="the number of the step")
    action.add_argument(
        "-o", "--output", metavar="OUT", required=True, help="the checkpoint to write: file or directory"
    )
    arguments.add_force(action)


def extract(options: argparse.Namespace) -> None:
    """Run ``series extract``."""
    from dtscodec import Series

    start = time.perf_counter()
    series = Series(options.directory)
    with series.decode(options.step) as decoded:
        total = sum(decoded.spec(name).nbytes for name in decoded)
        with progress_bar("extract", total) as progress:
            decoded.save(options.output, force=options.force, progress=progress)
    links = series.index.depth(series.step(options.step))
    seconds = time.perf_counter() - start
    console.print_lines(
        f"step {options.step}: {console.size(total)}, {links} links from an anchor, {seconds:.1f} s: {options.output}"
    )


def _add_prune(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    action = _action(actions, "prune", "delete steps of a series; the others stay, bit for bit", prune)
    which = action.add_mutually_exclusive_group(required=True)
    which.add_argument("--steps", metavar="STEP", type=arguments.step_count, nargs="+", help="the steps to delete")
    which.add_argument("--keep-last", metavar="N", type=arguments.count, help="delete all but the last ones")
    which.add_argument("--keep-every", metavar="N", type=arguments.count, help="delete all but the multiples of this")


def prune(options: argparse.Namespace) -> None:
    """Run ``series prune``."""
    from dtscodec import Series
    from dtscodec.series.prune import prune as prune_steps

    series = Series(options.directory)
    numbers = [step.step for step in series.steps]
    if options.keep_last:
        gone = numbers[: -options.keep_last]
    elif options.keep_every:
        gone = [number for number in numbers if number % options.keep_every]
    else:
        gone = options.steps
    before = sum(step.size for step in series.steps)
    anew = prune_steps(series, gone)
    after = sum(step.size for step in series.steps)
    words = f"{len(gone)} steps deleted, {anew} stored anew, {len(series.steps)} left"
    console.print_lines(f"{words}: {console.size(before)} -> {console.size(after)}: {series.directory}")


def _add_follow(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    action = _action(
        actions, "follow", "bring a local checkpoint to the last step of a series, and to each new one", follow
    )
    action.add_argument("-o", "--output", metavar="OUT", required=True, help="the checkpoint: file or directory")
    action.add_argument("--once", action="store_true", help="end when it is at the last step")
    action.add_argument(
        "--interval", metavar="SECONDS", type=float, default=5.0, help="time between looks at the series (default: 5)"
    )


def follow(options: argparse.Namespace) -> None:
    """Run ``series follow``."""
    from dtscodec import Series
    from dtscodec.series.follow import follow_checkpoint

    series = Series(options.directory)
    while True:
        if series.steps:
            start = time.perf_counter()
            applied = follow_checkpoint(series, options.output)
            if applied is not None:
                seconds = time.perf_counter() - start
                console.print_lines(f"step {applied.step}: applied in {seconds:.1f} s: {options.output}")
        if options.once:
            return
        _wait(series, options.interval)


def _wait(series: "Series", interval: float) -> None:
    """Wait until the series has another last step."""
    last = series.steps[-1:]
    while series.steps[-1:] == last:
        time.sleep(interval)
        series.refresh()


def _facts(step: "Step") -> dict[str, object]:
    return {
        "step": step.step,
        "base": step.base,
        "file": step.file,
        "size": step.size,
        "id": step.id,
        "content": step.content,
    }
