"""The lines that commands print about a pack, a fit and a comparison of behaviour."""

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from dtscodec.cli import console
from dtscodec.cli.remedies import spell_option

if TYPE_CHECKING:
    from dtscodec import EncodeReport, FitReport
    from dtscodec.encoding.notes import Note
    from dtscodec.encoding.pack_report import PackReport, ResidualReport
    from dtscodec.evaluation.compare_behaviour import Behaviour


def pack_line(task: str, report: "EncodeReport", fit: str = "") -> str:
    """Return the line about a pack that was encoded.

    Parameters
    ----------
    task : str
        Name of the fine-tune.
    report : EncodeReport
        Sizes, error and time.
    fit : str
        The words about a fit, which follow the relative error; see `fit_words`.
    """
    if report.residual is not None:
        return _exact_line(task, report, report.residual, fit)
    sizes = f"{console.size(report.fine_bytes)} -> {console.size(report.pack_bytes)}"
    share = console.percent(report.pack_bytes, report.fine_bytes)
    # The error is that of the tensors that are not exact.
    exact = f", {console.size(report.exact_bytes)} of it exact" if report.exact_bytes else ""
    rest, whole = (" of the rest", "its") if exact else ("", "the")
    error = f"relative error{rest} {report.relative_error:.2f}{fit}"
    left_out = f", {100 * report.left_out:.1f} % of {whole} delta left out" if report.left_out else ""
    return f"{task}: {sizes} ({share}){exact}, {error}{left_out}, {report.seconds:.1f} s: {report.path}"


def _exact_line(task: str, report: "EncodeReport", residual: "ResidualReport", fit: str) -> str:
    sizes = f"{console.size(report.fine_bytes)} -> {console.size(report.pack_bytes)}"
    share = console.percent(report.pack_bytes, report.fine_bytes)
    what = "bit for bit" if residual.weight_files else "tensors bit for bit, files of other headers"
    codes = f"{console.size(residual.front_bytes)} without the residual layer{fit}"
    return f"{task}: {sizes} ({share}), {what}, {codes}, {report.seconds:.1f} s: {report.path}"


def note_lines(task: str, report: "PackReport") -> list[str]:
    """Return the lines about the notes on a pack, which follow its own line.

    Parameters
    ----------
    task : str
        Name of the fine-tune.
    report : PackReport
        The report with the notes.
    """
    return [f"{task}: {note.spelled(spell_option)}" for note in report.notes]


def report_facts(report: "PackReport") -> dict[str, Any]:
    """Return a report as a document for ``--json``.

    Parameters
    ----------
    report : PackReport
        The report of any call that writes a pack.
    """
    facts = {field.name: getattr(report, field.name) for field in fields(report)}
    if "residual" in facts:
        facts["residual"] = facts["residual"] and asdict(facts["residual"])
    return facts | {"path": str(report.path), "notes": [note_facts(note) for note in report.notes]}


def note_facts(note: "Note") -> dict[str, Any]:
    """Return a note as a document for ``--json``."""
    remedy = None if note.remedy is None else note.remedy.spelled(spell_option)
    facts = {field.name: getattr(note, field.name) for field in fields(note)}
    return facts | {"names": list(note.names), "remedy": remedy}


def fit_words(report: "FitReport | None", samples: str) -> str:
    """Return the words about the fit of a pack, for `pack_line`.

    Parameters
    ----------
    report : FitReport or None
        None if the pack has no numbers to fit.
    samples : str
        Path of the calibration samples.
    """
    if report is None:
        return ", nothing to fit"
    fitted = f"before the fit to {_fitted_to(report, samples)}{_how(report)}"
    return f" {fitted}, {_kl_change(report, 'see dtscodec fit --steps')}"


def fit_line(task: str, report: "FitReport", samples: str, remedy: str) -> str:
    """Return the line about a pack that was fitted.

    Parameters
    ----------
    task : str
        Name of the fine-tune.
    report : FitReport
        Sizes, losses and time.
    samples : str
        Path of the calibration samples.
    remedy : str
        Advice if the KL rose.
    """
    fitted = f"{report.numbers:,} numbers fitted to {_fitted_to(report, samples)}{_how(report)}"
    change = _kl_change(report, remedy)
    return f"{task}: {console.size(report.pack_bytes)}, {fitted}, {change}, {report.seconds:.1f} s: {report.path}"


def _how(report: "FitReport") -> str:
    """Return the words about a fit whose models were not in memory as a whole."""
    return " with one layer at a time in memory" if report.offloaded else ""


def _fitted_to(report: "FitReport", samples: str) -> str:
    truncated = f" ({report.truncated:,} of them truncated)" if report.truncated else ""
    return _count(report.samples, samples) + truncated


def _kl_change(report: "FitReport", remedy: str) -> str:
    """Return the KL before and after a fit; it may rise where hidden states come closer."""
    before, after = report.before.kl, report.after.kl
    rose = f" (it rose: {remedy})" if after > before else ""
    return f"KL on these {before:.2g} -> {after:.2g}{rose}"


def behaviour_line(behaviour: "Behaviour", samples: str) -> str:
    """Return the line about a comparison of predictions.

    Parameters
    ----------
    behaviour : Behaviour
        The figures.
    samples : str
        Path of the samples.

    Examples
    --------
    >>> from dtscodec.evaluation.compare_behaviour import Behaviour
    >>> print(behaviour_line(Behaviour(1500, 1500, 0.00391, 0.969), "texts.txt"))
    behaviour   1,500 texts: KL 0.0039, agrees 96.9 %
    """
    tokens = f", {behaviour.predictions:,} tokens" if behaviour.perplexity else ""
    figures = [f"KL {behaviour.kl:.2g}", f"agrees {100 * behaviour.agreement:.1f} %"]
    if behaviour.accuracy:
        figures.append("accuracy " + " -> ".join(f"{100 * share:.1f} %" for share in behaviour.accuracy))
    if behaviour.perplexity:
        figures.append("perplexity " + " -> ".join(f"{value:.4g}" for value in behaviour.perplexity))
    return f"behaviour   {_count(behaviour.samples, samples)}{tokens}: {', '.join(figures)}"


def behaviour_facts(behaviour: "Behaviour") -> dict[str, Any]:
    """Return a comparison of predictions as JSON.

    Parameters
    ----------
    behaviour : Behaviour
        The figures.
    """
    pairs = {"accuracy": behaviour.accuracy, "perplexity": behaviour.perplexity}
    return asdict(behaviour) | {name: pair._asdict() if pair else None for name, pair in pairs.items()}


def _count(count: int, samples: str) -> str:
    """Return a number of samples with their kind, such as ``64 texts``."""
    from dtscodec.evaluation.samples import sample_kind

    return f"{count:,} {sample_kind(samples)}"
