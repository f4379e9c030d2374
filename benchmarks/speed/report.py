"""The result as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.common.markdown import markdown_table
from benchmarks.speed.engines import DASK, title
from benchmarks.speed.factors import RANK
from benchmarks.speed.models import SIZE
from benchmarks.speed.power_law import FIT_FROM, exponent, spread
from benchmarks.speed.results import engine_rows, runs
from dtscodec.linalg.subspace_iteration import EXTRA_VECTORS


def speed_page(result: Mapping[str, Any]) -> str:
    """All tables of a result (the content of ``result.json``)."""
    head = max(runs(result), key=lambda run: str(run["date"]))
    sections = {"matrices": _matrices, "factors": _factors, "models": _models, "many": _many}
    parts = [f"# Speed of encoding\n\nPrinted by `python -m benchmarks.speed` {_circumstances(head)}."]
    if "models" in result:
        parts.append("![Time, memory and bytes as models grow](result.png)")
    for name, section in sections.items():
        if name in result:
            parts.append(section(result[name]) + _own_circumstances(name, result[name], head))
    if "models" in result:
        parts.insert(-1 if "many" in result else len(parts), _engines(result))
    return "\n\n".join(parts) + "\n"


def _circumstances(run: Mapping[str, Any]) -> str:
    machine, versions = run["machine"], run["versions"]
    return (
        f"on {run['date']}: {machine['processor']}, {machine['cores']} cores, torch {versions['torch']}, "
        f"Python {versions['python']}"
    )


def _own_circumstances(name: str, part: Mapping[str, Any], head: Mapping[str, Any]) -> str:
    """A line for each run of a part that was made at another time or place than the head says."""
    named = {f"{model} B": run for model, run in part.items()} if name == "models" else {"This part": part}
    others = [
        f"{label}: {_circumstances(run)}."
        for label, run in named.items()
        if _circumstances(run) != _circumstances(head)
    ]
    return "".join(f"\n\n{line}" for line in others)


def _matrices(part: Mapping[str, Any]) -> str:
    cells, notes = [], []
    for row in part["rows"]:
        full, name = row["seconds"]["full SVD"], " x ".join(map(str, row["shape"]))
        cells += [
            [name, str(row["rank"]), what, f"{seconds:.2f}", f"{full / seconds:.1f}"]
            for what, seconds in row["seconds"].items()
        ]
        exact, ours = row["error"]["from exact factors"], row["error"]["from ours"]
        notes.append(f"- {name}: error after refits {ours:.4f}, {ours / exact:.4f} times that from exact factors.")
    table = markdown_table(["matrix", "rank", "what", "seconds", "times as fast as the full SVD"], cells)
    return f"## One matrix, on one thread\n\n{table}\n\n" + "\n".join(notes)


def _factors(part: Mapping[str, Any]) -> str:
    rows = part["rows"]
    by_work = [row["seconds"] / row["work"] * 1e9 for row in rows]
    by_parameters = [row["seconds_fixed"] / row["parameters"] * 1e9 for row in rows]
    cells = [
        [
            f"{row['model']} B",
            f"{row['parameters'] / 1e9:.2f} B",
            _ranks(row["matrices"]),
            f"{row['seconds']:.1f}",
            f"{work:.3f}",
            f"{row['seconds_fixed']:.1f}",
            f"{each:.1f}",
        ]
        for row, work, each in zip(rows, by_work, by_parameters, strict=True)
    ]
    head = ["model", "in matrices", f"ranks of {SIZE}", "seconds", "ns per m n r"]
    head += [f"seconds at rank {RANK}", "ns a parameter"]
    power = exponent([row["parameters"] for row in rows], [row["seconds_fixed"] for row in rows])
    return (
        "## Factors of all matrices of a model, on one thread\n\n"
        "Every distinct matrix m x n is factored at rank r, its least time counted as often as the model has it.\n\n"
        f"{markdown_table(head, cells)}\n\n"
        f"- Time by the sum of m n r: largest to smallest {spread(by_work):.2f}; by the sum of "
        f"m n (r + {EXTRA_VECTORS}), as {EXTRA_VECTORS} "
        f"vectors more are computed than are wanted: {spread(_by_all_work(rows)):.2f}.\n"
        f"- At rank {RANK}, time by parameters: largest to smallest {spread(by_parameters):.2f}; "
        f"it grows with the power {power:.2f} of the parameters."
    )


def _by_all_work(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Seconds by parameters and vectors computed."""
    return [row["seconds"] / (row["work"] + EXTRA_VECTORS * row["parameters"]) for row in rows]


def _ranks(matrices: Sequence[Mapping[str, Any]]) -> str:
    ranks = [matrix["rank"] for matrix in matrices]
    return f"{min(ranks)} to {max(ranks)}"


def _models(part: Mapping[str, Any]) -> str:
    cells = [_model(row) for run in part.values() for row in run["rows"]]
    head = ["parameters", "checkpoint", "engine", "seconds", "ns a parameter", "peak memory"]
    head += ["read", "from storage", "written", "pack"]
    return (
        f"## Whole models, bf16, `--size {SIZE}`\n\n{markdown_table(head, cells)}\n\n"
        "Peak memory: anonymous, workers included. Read and written: by system calls of the command and its workers, "
        "pipes between them included, sockets not; from storage: what of it the system had not cached."
    )


def _model(row: Mapping[str, Any]) -> list[str]:
    return [
        f"{row['parameters'] / 1e9:.2f} B",
        _amount(row["checkpoint"]),
        title(row["engine"]),
        f"{row['seconds']:.1f}",
        f"{row['seconds'] / row['parameters'] * 1e9:.0f}",
        *(_amount(row[key]) for key in ("peak", "read", "fetched", "written")),
        _amount(row["pack"]),
    ]


def _amount(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _engines(result: Mapping[str, Any]) -> str:
    cells = [_compared({row["engine"]: row for row in run["rows"]}) for run in result["models"].values() if run["rows"]]
    head = ["parameters", "2 workers to 1, time", f"{title(DASK)}, to 1 worker, time", "pack id", "bytes of the packs"]
    lines = [f"## Engines\n\n{markdown_table(head, cells)}", "\n".join(_growth(result))]
    if engine_rows(result, DASK):
        lines.append(
            f"{title(DASK)}: a cluster of this machine, in place before the clock starts; scheduler not counted."
        )
    return "\n\n".join(filter(None, lines))


def _compared(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    first = next(iter(rows.values()))
    alike = len({row["sha256"] for row in rows.values()}) == 1
    verdict = "the same on all engines" if alike else "NOT THE SAME: " + ", ".join(map(title, rows))
    return [
        f"{first['parameters'] / 1e9:.2f} B",
        *(_ratio(rows, engine) for engine in ("2", DASK)),
        f"`{first['pack_id'][:16]}`",
        verdict if len(rows) > 1 else "one engine only",
    ]


def _ratio(rows: Mapping[str, Mapping[str, Any]], engine: str) -> str:
    return f"{rows[engine]['seconds'] / rows['1']['seconds']:.2f}" if engine in rows and "1" in rows else "-"


def _growth(result: Mapping[str, Any]) -> list[str]:
    """Exponents of time for one worker, over all models and over those that are not small."""
    rows = engine_rows(result, "1")
    larger = [row for row in rows if row["parameters"] >= FIT_FROM]
    return [
        f"- One worker, {_span(some)}: seconds grow with the power {_power(some):.2f} of the parameters."
        for some in ([rows, larger] if larger != rows else [rows])
        if len(some) > 1
    ]


def _span(rows: Sequence[Mapping[str, Any]]) -> str:
    return f"{rows[0]['parameters'] / 1e9:.2f} to {rows[-1]['parameters'] / 1e9:.2f} B"


def _power(rows: Sequence[Mapping[str, Any]]) -> float:
    return exponent([row["parameters"] for row in rows], [row["seconds"] for row in rows])


def _many(row: Mapping[str, Any]) -> str:
    together, single, count = row["together"], row["single"], row["fine_tunes"]
    once = together["hashed"] == together["distinct"] == row["base_tensors"]
    cells = [
        ["one command", f"{together['seconds']:.1f}", f"{together['coding']:.1f}", str(together["hashed"])],
        [
            f"{count} commands, base not hashed",
            f"{single['seconds']:.1f}",
            f"{single['coding']:.1f}",
            str(single["hashed"]),
        ],
    ]
    head = [
        f"{count} fine-tunes of {row['parameters'] / 1e9:.2f} B",
        "seconds",
        "without start-up",
        "base tensors hashed",
    ]
    return (
        f"## Many fine-tunes of one base, one worker\n\n{markdown_table(head, cells)}\n\n"
        f"- One command takes {together['seconds'] / single['seconds']:.3f} times what the {count} take, "
        f"{together['coding'] / single['coding']:.3f} without start-up (Python, and loading torch).\n"
        f"- The base has {row['base_tensors']} tensors, {'each hashed once' if once else 'NOT EACH HASHED ONCE'}: "
        f"{together['hashing']:.2f} s in all. Of the {count} commands each took a constant instead, "
        f"{single['calls']} times in all; packs are {'as large' if row['same_sizes'] else 'NOT AS LARGE'}.\n"
        f"- One command: peak memory {_amount(together['peak'])}, read {_amount(together['read'])}, "
        f"written {_amount(together['written'])}."
    )
