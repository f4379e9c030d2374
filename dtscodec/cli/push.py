"""``dtscodec push``: packs -> a repository of the Hugging Face Hub."""

import argparse
from dataclasses import asdict
from pathlib import Path

from dtscodec.cli import arguments, console
from dtscodec.cli.console import progress_bar


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command."""
    parser.description = (
        "Check packs and upload those that are new or changed to a repository of the Hub, in one commit, with an "
        "index and a model card."
    )
    parser.epilog = (
        "The token is that of 'hf auth login' or HF_TOKEN. In an existing README only the marked part is "
        "replaced, and metadata are added."
    )
    parser.add_argument(
        "source", metavar="DIR_OR_PACK", help="a directory of packs, as `dtscodec encode -o DIR` writes it, or one pack"
    )
    parser.add_argument("repo", metavar="USER/REPO", type=_repo, help="the repository, created if it does not exist")
    parser.add_argument("--base", metavar="hf://USER/REPO", help="the base of all packs, in place of what they record")
    parser.add_argument(
        "--figures",
        metavar="TASK=FILE",
        type=_figures,
        action="append",
        default=[],
        help="output of `dtscodec compare --json` for a task, for the model card; repeatable",
    )
    parser.add_argument("--revision", metavar="BRANCH", help="branch to commit to (default: main)")
    parser.add_argument("--private", action="store_true", help="if the repository is created, make it private")
    parser.add_argument("--message", help="commit message")
    parser.add_argument("--dry-run", action="store_true", help="show what would be uploaded, and upload nothing")
    arguments.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from dtscodec.hub.push import push
    from dtscodec.hub.repository import read_figures

    figures = {task: read_figures(path) for task, path in options.figures}
    with progress_bar("check", _bytes(Path(options.source))) as progress:
        done = push(
            options.source,
            options.repo,
            base=options.base,
            figures=figures,
            revision=options.revision,
            private=options.private,
            message=options.message,
            dry_run=options.dry_run,
            progress=progress,
        )
    if options.json:
        console.print_json({**asdict(done), "dry_run": options.dry_run})
        return
    # A line for each file, then a summary: unchanged packs, a new branch, the commit.
    lines = [f"{path}  {console.size(size)}" for path, size in sorted(done.files.items())]
    same = f"{len(done.unchanged)} packs unchanged" if done.unchanged else ""
    branch = (
        f"branch {done.branch} {'would be' if options.dry_run else 'was'} created from the main one"
        if done.branch
        else ""
    )
    if not done.files:
        end = "" if branch else "everything is up to date"
    elif options.dry_run:
        end = f"{len(done.files)} files would be uploaded to {done.repo}"
    else:
        end = f"{len(done.files)} files: {done.url}"
    console.print_lines(*lines, "; ".join(filter(None, [same, branch, end])))


def _bytes(source: Path) -> int:
    files = source.rglob("*.safetensors") if source.is_dir() else [source]
    return sum(file.stat().st_size for file in files if file.is_file())


def _repo(text: str) -> str:
    name = text.removeprefix("hf://").strip("/")
    if name.count("/") != 1 or "@" in name or not all(name.split("/")):
        raise argparse.ArgumentTypeError(f"expected USER/REPO, got {text!r}")
    return name


def _figures(text: str) -> tuple[str, Path]:
    task, equals, file = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected TASK=FILE, got {text!r}")
    return task, Path(file)
