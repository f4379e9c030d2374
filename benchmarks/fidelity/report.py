"""The result of a run as Markdown."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.common.markdown import markdown_table, percent
from benchmarks.fidelity.bfloat16_lora import DELTA, WEIGHT
from benchmarks.fidelity.summary import SHARES
from benchmarks.fidelity.sweep import AT_PAPERS


def fidelity_page(result: Mapping[str, Any]) -> str:
    """All tables of a result (the content of ``result.json``)."""
    parts = [
        _head(result),
        "## KL from the fine-tune by size, four tasks of two classes\n\n" + _sizes(result["two_classes"]),
        "## The same, sixteen classes\n\n" + _sizes(result["sixteen"]),
        "## `best` against `paper` and BitDelta, all test texts\n\n" + _promises(result["promises"]),
        "## A LoRA of rank 16 on query and value, merged in fp32\n\n" + _lora(result["lora"]),
        _half(result["half"]),
        "## A small pack's container\n\n" + _container(result["container"]),
        "## What each ingredient is worth\n\n" + _ablations(result["ablations"]),
        "## Other training seeds: KL\n\n" + _seeds(result["seeds"]),
        "## Distance to the limit\n\n" + _distances(result["distances"]),
        "## Real packages\n\n" + _packages(result["packages"]),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _head(result: Mapping[str, Any]) -> str:
    machine, versions = result["machine"], result["versions"]
    return (
        f"# Fidelity\n\nPrinted by `python -m benchmarks.fidelity` on {result['date']}: {machine['processor']}, "
        f"{machine['cores']} cores, torch {versions['torch']}, Python {versions['python']}. MiniLM-L6 (90.9 MB in "
        "fp32), fine-tuned on all of the training split, two epochs; sweeps on the first "
        f"{result['few']} texts of each frozen test split, what is promised on all {result['texts']}. Every byte "
        "counts: of our presets the whole file; of peers codes, scales, indices and a head in fp16, while what they "
        "do not speak of (vectors) stays the base's at no cost. Within each size a method's best setting counts, "
        "task by task."
    )


def _sizes(table: Mapping[str, Sequence[Mapping[str, float] | None]]) -> str:
    """Geometric mean of the KL over tasks, and by which factor it spreads (one standard deviation)."""
    order = sorted(table, key=lambda method: (method != "best", method != "paper", method.lower()))
    rows = [
        [f"**{method}**" if method == "best" else method, *("-" if c is None else _cell(c) for c in table[method])]
        for method in order
        if method != "fine-tune"
    ]
    return markdown_table(["method", *(percent(share, 2) for share in SHARES)], rows)


def _cell(cell: Mapping[str, float]) -> str:
    spread = f" ×÷{cell['spread']:.1f}" if cell["spread"] > 1.001 else ""
    return f"{cell['kl']:.2g}{spread}"


def _promises(promises: Mapping[str, Any]) -> str:
    rows = []
    for task, row in promises["tasks"].items():
        for name, figures in row.items():
            if isinstance(figures, Mapping):
                rows.append([task, name, *_figures(figures), *_errors(figures)])
    head = ["task", "", "bytes", "share", "KL", "agrees", "accuracy", "delta's error", "standard errors above paper"]
    ratios = [
        f"At {setting}: paper's KL is {row['kl_of_paper_by_ours']:.1f} times that of `best`; "
        f"accuracy lost {100 * row['accuracy_lost']:.2f} points (four tasks of two classes)."
        for setting, row in promises.items()
        if setting != "tasks"
    ]
    return markdown_table(head, rows) + "\n\n" + "\n".join(f"- {line}" for line in ratios)


def _errors(figures: Mapping[str, float]) -> list[str]:
    value = figures.get("agreement_over_paper_in_standard_errors")
    return ["" if value is None else f"{value:+.1f}"]


def _figures(figures: Mapping[str, float]) -> list[str]:
    return [
        f"{figures['bytes']:,}",
        percent(figures["share"], 2),
        f"{figures['kl']:.5f}",
        f"{100 * figures['agreement']:.1f} %",
        f"{100 * figures['accuracy']:.1f} %",
        f"{figures['error']:.3f}",
    ]


def _lora(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ["asked for", "bytes", "share", "KL", "agrees", "accuracy", "delta's error", "ranks", "bits"]
    return markdown_table(head, [[row["asked"], *_figures(row), row["ranks"], row["bits"]] for row in rows])


def _half(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [
        [
            row["factors"],
            f"{row['bytes']:,}",
            percent(row["share"], 2),
            _ranks(row),
            f"{100 * row['within_one_ulp']:.1f} %",
        ]
        for row in rows
    ]
    intro = (
        f"Merged in bf16, each weight matrix at a root mean square of {WEIGHT} and its delta at {DELTA}, default size; "
        "weights within one unit in the last place of the fine-tune's, of the matrices that changed:"
    )
    return f"{intro}\n\n" + markdown_table(["factors", "bytes", "share", "ranks", "weights"], cells)


def _ranks(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{count} of rank {rank}" for rank, count in sorted(Counter(row["ranks"]).items(), reverse=True))


def _container(row: Mapping[str, Any]) -> str:
    def part(name: str) -> str:
        return f"{row[name]:,} bytes ({100 * row[name] / row['bytes']:.1f} %)"

    return (
        f"Of {row['bytes']:,} bytes (tweets, {row['asked']}): header, digests, index and padding {part('overhead')}; "
        f"configuration and tokenizer files {part('files')}; which rows and columns are coded {part('bitmaps')}."
    )


def _ablations(tables: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    two, sixteen = tables["two_classes"], tables["sixteen"]
    sizes = sorted({size for row in two.values() for size in row}, key=lambda size: float(size.rstrip("%")))

    def cells(row: Mapping[str, float]) -> list[str]:
        return [f"{row[size]:.5f}" if size in row else "-" for size in sizes]

    rows = [[_named(method), *cells(row), *cells(sixteen.get(method, {}))] for method, row in two.items()]
    head = ["KL", *sizes, *(f"sixteen classes, {size}" for size in sizes)]
    note = (
        "Geometric mean of four tasks of two classes, and one task of sixteen. Levels: Lloyd-Max, bytes are counted, "
        "not written; one code book for all components, no bitmaps, no vectors."
    )
    return markdown_table(head, rows) + f"\n\n{note}"


def _named(method: str) -> str:
    return method.removeprefix("ablation: ").replace("levels: ", "levels, counted: ")


def _seeds(table: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    names = [f"best {size}" for size in ("0.1%", "0.25%", AT_PAPERS)] + ["paper rank 0.1"]
    rows = [
        [task, *(", ".join(f"{kl:.4f}" for kl in row.get(name, ())) for name in names)] for task, row in table.items()
    ]
    return markdown_table(["task", *names], rows)


def _distances(tasks: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    rows = [
        [task, size, f"{row['error']:.3f}", f"{row['limit']:.3f}", f"{row['error'] / row['limit']:.2f}"]
        for task, sizes in tasks.items()
        for size, row in sizes.items()
    ]
    note = "Relative error of all matrices, least-error recipe; the limit of `limit.py` for any code of their factors."
    return markdown_table(["task", "size", "best without gain", "limit", "ratio"], rows) + f"\n\n{note}"


def _packages(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [
        [row["name"], row["missing"], "", "", ""]
        if "missing" in row
        else [row["name"], f"{row['bytes']:,}", percent(row["share"], 2), f"{row['kl']:.5f}", f"{row['error']:.3f}"]
        for row in rows
    ]
    return markdown_table(["package, on tweets", "bytes", "share", "KL", "delta's error"], cells)
