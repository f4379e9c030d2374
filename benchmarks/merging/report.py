"""The result of a run as Markdown."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.common.markdown import markdown_table, percent
from benchmarks.merging import bases, calibration, dts, esm, lossless, routing, unseen
from benchmarks.merging.bench import ALL, FOUR, SEARCH, TEXTS, TRAINED
from benchmarks.merging.merges import AVERAGE, GRAM_TEXTS
from benchmarks.merging.packs import PRETRAINED
from benchmarks.merging.promises import promises
from benchmarks.merging.rows import Rows, rows_of


def merging_page(result: Mapping[str, Any]) -> str:
    """All tables of a result (the content of ``result.json``), of the parts that are known."""
    rows = rows_of(row for part in result.values() for row in part["rows"])
    sections = [
        f"## {title}\n\n{make(rows)}\n\n{_where(result[part])}"
        for part, (title, make) in _SECTIONS.items()
        if part in result
    ]
    return "\n\n".join([_head(), _promises(rows), *sections]) + "\n"


def _head() -> str:
    return (
        "# Merging\n\nPrinted by `python -m benchmarks.merging`. MiniLM-L6 (90.9 MB in fp32), fine-tuned on "
        f"{TRAINED:,} texts of each task from one seed's head, two epochs; judged on the {TEXTS:,} texts of each "
        "frozen test split: one task's accuracy has a standard error of some 1.0 points, a mean of four of 0.5. Merged "
        "bases have no head: each task brings its own.\n\n![Accuracy of merged bases, of a domain left out, and KL of "
        "packs that were fitted to texts by that of plain ones](result.png)"
    )


def _where(part: Mapping[str, Any]) -> str:
    machine, versions = part["machine"], part["versions"]
    return (
        f"{part['date']}: {machine['processor']}, one thread, torch {versions['torch']}, Python {versions['python']}, "
        f"dtscodec {versions['dtscodec']}."
    )


def _promises(rows: Rows) -> str:
    lines = [f"- {line}" for line in promises(rows)]
    return "\n".join(["## What was to hold", "", *lines])


def _mean(rows: Rows, part: str, name: str, setting: str, tasks: Sequence[str], figure: str) -> float | None:
    return rows.mean(part, name, setting, tasks, figure) if rows.has(part, name, setting, *tasks) else None


def _percent(share: float | None) -> str:
    return "" if share is None else percent(share)


# Merged bases


def _bases(rows: Rows, part: str, tasks: Sequence[str], names: Sequence[tuple[str, str]]) -> str:
    """Methods of a part: accuracy at the default alpha and at the one found, task by task at that."""
    lines = []
    for of, name in names:
        default, searched = (
            _mean(rows, of, name, setting, tasks, "accuracy") for setting in (bases.DEFAULT, bases.SEARCHED)
        )
        setting = bases.DEFAULT if searched is None else bases.SEARCHED
        if default is None:
            continue
        alpha = rows.figures(of, name, bases.SEARCHED, "")["alpha"] if searched is not None else None
        distance = rows.figures(of, name, bases.DEFAULT, tasks[0]).get("distance")
        lines.append(
            [
                name,
                percent(default),
                _percent(searched),
                "" if alpha is None else f"{alpha:.2f}",
                *(percent(rows.figures(of, name, setting, task)["accuracy"]) for task in tasks),
                "" if distance is None else f"{rows.mean(of, name, bases.DEFAULT, tasks, 'distance'):.2f}",
            ]
        )
    head = ["", "mean, default", "mean, alpha searched", "alpha", *tasks, "distance"]
    return markdown_table(head, lines)


def _shared(rows: Rows) -> str:
    intro = (
        f"Accuracy. The logarithm of alpha is searched by a golden section on {SEARCH} held-out training texts of each "
        "task, from 0.1 to 20, for all alike; single tasks are at the alpha found. Distance: the norm of a fine-tune's "
        "difference vector from the base at its default alpha, by that from the pre-trained one; what a pack has to "
        "say."
    )
    return f"{intro}\n\n" + _bases(rows, bases.PART, FOUR, [(bases.PART, name) for name in rows.names(bases.PART)])


def _seven(rows: Rows) -> str:
    names = [(bases.SEVEN, name) for name in rows.names(bases.SEVEN) if not name.startswith(bases.PACKED)]
    intro = (
        "The same with three more tasks on texts of all four domains: sixteen classes (domain, sign, intensity), the "
        "source of a text (four), and its intensity (two)."
    )
    packs = f"Packs of {bases.SIZE} of the three, against the pre-trained base and the average of seven:"
    return f"{intro}\n\n{_bases(rows, bases.SEVEN, ALL, names)}\n\n{packs}\n\n{_packs_of_three(rows)}"


def _packs_of_three(rows: Rows) -> str:
    lines = []
    for row in rows.of(bases.SEVEN):
        if row.name.startswith(bases.PACKED):
            f = row.figures
            told = [f"{f['kl']:.5f}", percent(f["agreement"]), percent(f["accuracy"])]
            lines.append([row.name.removeprefix(bases.PACKED), row.task, f"{f['bytes']:,.0f}", *told])
    return markdown_table(["base", "task", "bytes", "KL", "agrees", "accuracy"], lines)


def _esm(rows: Rows) -> str:
    names = [
        (bases.PART, name) for name in ("pre-trained", "average", "task arithmetic", "TIES", "TSV-M", "ESM, no inputs")
    ]
    names += [(esm.PART, name) for name in rows.names(esm.PART)] + [(bases.PART, "fine-tune")]
    intro = f"Inputs of layers are those of {GRAM_TEXTS} texts that each fine-tune was trained on. Rivals from above."
    return f"{intro}\n\n" + _bases(rows, esm.PART, FOUR, names)


def _routing(rows: Rows) -> str:
    lines = []
    for size in routing.SIZES:
        for way in routing.WAYS:
            if rows.has(routing.PART, way, size, *FOUR):
                mean = {
                    f: rows.mean(routing.PART, way, size, FOUR, f) for f in ("kl", "agreement", "accuracy", "bytes")
                }
                each = (percent(rows.figures(routing.PART, way, size, task)["accuracy"]) for task in FOUR)
                told = [percent(mean["accuracy"]), *each, percent(mean["agreement"]), f"{mean['kl']:.4f}"]
                lines.append([way, size, *told, f"{mean['bytes']:,.0f}"])
    intro = (
        "Packs of all four tasks beside the ESM base at its searched alpha, each task's own head above. Task known: "
        "`attach` and `serve`. Routed: by prototypes out of the same texts as ESM's inputs; embeddings and norms stay "
        "the base's by layer, and go with the sample's task by sample. Bytes: of all four packs."
    )
    return f"{intro}\n\n" + markdown_table(["", "size", "accuracy", *FOUR, "agrees", "KL", "bytes"], lines)


# Packs


def _dts(rows: Rows) -> str:
    lines = []
    for size in dts.SIZES:
        for name in rows.names(dts.PART, size):
            if not rows.has(dts.PART, name, size, *FOUR):
                continue
            mean = {f: rows.mean(dts.PART, name, size, FOUR, f) for f in ("kl", "agreement", "accuracy", "bytes")}
            is_merged = name != PRETRAINED
            found = (_mean(rows, part, name, bases.DEFAULT, FOUR, "distance") for part in (bases.PART, esm.PART))
            distance = next((value for value in found if value is not None), None) if is_merged else None
            lines.append(
                [
                    f"{name} (DTS-T)" if name == PRETRAINED else name,
                    size,
                    f"{mean['bytes']:,.0f}",
                    f"{mean['kl']:.5f}",
                    percent(mean["agreement"]),
                    percent(mean["accuracy"]),
                    "1.00" if name == PRETRAINED else "" if distance is None else f"{distance:.2f}",
                ]
            )
    head = ["base", "size", "bytes", "KL", "agrees", "accuracy", "distance"]
    intro = (
        "Packs of the same `--size` against the pre-trained base (DTS-T) and merged ones (DTS-D); means of four tasks."
    )
    return f"{intro}\n\n{markdown_table(head, lines)}\n\n{_three(rows)}".strip()


def _three(rows: Rows) -> str:
    size = dts.SIZES[0]
    if not rows.has(dts.PART, dts.DIRECTORY, size, "", *dts.THREE):
        return ""
    lines = []
    for task in dts.THREE:
        ours, theirs = (rows.figures(dts.PART, name, size, task) for name in (dts.DIRECTORY, PRETRAINED))
        own = (
            rows.figures(bases.PART, "fine-tune", bases.DEFAULT, task)
            if rows.has(bases.PART, "fine-tune", bases.DEFAULT, task)
            else None
        )
        lines.append(
            [
                task,
                "" if own is None else percent(own["accuracy"]),
                percent(theirs["accuracy"]),
                percent(ours["accuracy"]),
                f"{theirs['kl']:.5f}",
                f"{ours['kl']:.5f}",
                f"{theirs['bytes']:,.0f}",
                f"{ours['bytes']:,.0f}",
            ]
        )
    head = [
        "task",
        "fine-tune",
        "DTS-T accuracy",
        "DTS-D accuracy",
        "DTS-T KL",
        "DTS-D KL",
        "DTS-T bytes",
        "DTS-D bytes",
    ]
    sizes = rows.figures(dts.PART, dts.DIRECTORY, size, "")
    note = (
        f"The directory: {sizes['directory']:,.0f} bytes, of which the base takes {sizes['base']:,.0f} (plain: "
        f"{sizes['plain_base']:,.0f}) and the packs {sizes['packs']:,.0f}; the rest are tokenizer files and the index."
    )
    return (
        f"Without any pre-trained base, `dtscodec family average {' '.join(dts.THREE)} -o DIR --size {size}`:"
        f"\n\n{markdown_table(head, lines)}\n\n{note}"
    )


def _unseen(rows: Rows) -> str:
    keys = dict.fromkeys((row.name, row.setting) for row in rows.of(unseen.PART))
    lines = []
    for name, setting in keys:
        if rows.has(unseen.PART, name, setting, *FOUR):
            found = [rows.figures(unseen.PART, name, setting, task)["accuracy"] for task in FOUR]
            lines.append((sum(found) / len(found), [f"{name}, {setting}".strip(", "), *map(percent, found)]))
    body = [[name, percent(mean), *cells] for mean, (name, *cells) in sorted(lines, key=lambda line: line[0])]
    intro = (
        "Accuracy on each domain when nothing of it is known but its head, which is its fine-tune's; the other three "
        f"are averaged, or their packs of {unseen.SIZE} fused into one as large. Weights add up to 1 unless said. "
        f"Texts: by the base encoder's mean embedding of {unseen.TEXTS} texts."
    )
    return f"{intro}\n\n" + markdown_table(["", "mean", *FOUR], body)


# Calibration


def _calibration(rows: Rows) -> str:
    lines = [line for size in calibration.SIZES for line in _of_size(rows, size)]
    intro = (
        "Mean KL from the fine-tune over tasks, and by what factor it differs from the plain pack's of the same size "
        "over the same tasks. Calibration texts are of the task, not of those that were trained or are tested on. "
        "Fitted: `encode --calibration SAMPLES`, whose rates were chosen on other texts; no elements: `fit "
        "--no-elements`; biases corrected: `fit --bias-correction`, with `--steps 0` where it is alone."
    )
    head = ["size", "texts", "", "tasks", "bytes", "KL", "by plain's", "agrees", "accuracy", "seconds"]
    return f"{intro}\n\n" + markdown_table(head, lines)


def _of_size(rows: Rows, size: str) -> list[list[str]]:
    lines = [_calibrated(rows, size, 0, calibration.PLAIN, FOUR)]
    counts = sorted((calibration.TEXTS, *calibration.OTHERS))
    for tasks in (FOUR, calibration.SEVERAL) if size == calibration.SIZES[1] else (FOUR,):
        for texts in counts:
            for name in (*calibration.PARTS, calibration.FITTED):
                lines.append(_calibrated(rows, size, texts, name, tasks))
    return [line for line in lines if line]


def _calibrated(rows: Rows, size: str, texts: int, name: str, tasks: Sequence[str]) -> list[str]:
    setting = calibration.setting(size, texts) if texts else size
    if not rows.has(calibration.PART, name, setting, *tasks):
        return []
    mean = {
        f: rows.mean(calibration.PART, name, setting, tasks, f)
        for f in ("bytes", "kl", "agreement", "accuracy", "seconds")
    }
    plain = rows.mean(calibration.PART, calibration.PLAIN, size, tasks, "kl")
    return [
        size,
        str(texts or ""),
        name,
        "four" if tasks == FOUR else ", ".join(tasks),
        f"{mean['bytes']:,.0f}",
        f"{mean['kl']:.5f}",
        f"{mean['kl'] / plain:.2f}",
        percent(mean["agreement"]),
        percent(mean["accuracy"]),
        f"{mean['seconds']:.0f}",
    ]


def _lossless(rows: Rows) -> str:
    lines = []
    for row in rows.of(lossless.PART):
        f = row.figures
        lines.append(
            [
                row.name,
                row.setting,
                f"{f['bytes']:,.0f}",
                percent(f["share"]),
                f"{f['compress'] / 1e6:.0f} MB/s",
                f"{f['decompress'] / 1e6:.0f} MB/s",
            ]
        )
    intro = (
        f"The {AVERAGE.name} of the four fine-tunes, in fp32 and cast to bf16. dtscodec reads and writes files and "
        "checks digests; the others work in memory. Medians of three, on one thread, warm."
    )
    missing = "" if lossless.ZIPNN in rows.names(lossless.PART) else "\n\nzipnn was not installed."
    return f"{intro}\n\n" + markdown_table(["", "dtype", "bytes", "share", "compress", "decompress"], lines) + missing


_SECTIONS: dict[str, tuple[str, Callable[[Rows], str]]] = {
    bases.PART: ("Merged bases alone", _shared),
    bases.SEVEN: ("Seven tasks", _seven),
    dts.PART: ("Packs against merged bases", _dts),
    unseen.PART: ("A domain left out", _unseen),
    calibration.PART: ("Calibration", _calibration),
    esm.PART: ("ESM with each scaling off", _esm),
    routing.PART: ("Routing (ESM++)", _routing),
    lossless.PART: ("A shared base without loss", _lossless),
}
