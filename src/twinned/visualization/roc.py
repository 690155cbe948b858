"""Figures of verification: ROC, DET, distances, reliability, confusion matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np

from ..errors import DataError, SettingError
from ..evaluation.results import Evaluation
from ..evaluation.verification import Reliability, VerificationResult
from ..metrics.comparisons import Comparisons
from .colors import BLUE, CYCLE, GRAY, INK, PAPER, RULE, VERMILLION
from .style import DOTTED, Axes, Looks, dress, halo, legend, note, plain, ramp, sheet, short, words

Result: TypeAlias = Evaluation | VerificationResult

_AGAINST = {"random": "random impostors", "skilled": "skilled forgeries"}
_COLORS = {"": BLUE, "random": VERMILLION, "skilled": INK}
_LINES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)))
_RATES = (1e-4, 1e-3, 0.01, 0.05, 0.1, 0.2, 0.4)
_NORMAL = NormalDist()
_deviate = np.vectorize(lambda rate: _NORMAL.inv_cdf(min(max(rate, 1e-9), 1 - 1e-9)), otypes=[float])
_rate = np.vectorize(_NORMAL.cdf, otypes=[float])
_WORST = 0.6  # upper end of the DET axes
_TINY = 1e-9  # replaces a rate of 0, which neither scale can show


def _accepted(frr: Any) -> Any:
    return 1 - frr


def roc(results: Result | Mapping[str, Result], *, ax: Axes | None = None) -> Axes:
    """Draw the ROC curve: true accept rate against false accept rate, on a logarithmic scale.

    The band is the 95 % interval from resampling classes. For a single result, the stored threshold is
    marked, and the rates that the number of impostors does not support (rule of 30) are hatched.

    Args:
        results: An evaluation, or the result of `twinned.evaluation.evaluate_verification`; or several by
            name, such as ``{"a": evaluation, "b": other}``, with a curve for each.
        ax: Axes to draw on instead of a new figure.

    Raises:
        DataError: If there is no curve: genuine or impostor comparisons are missing, or no result.
    """
    ax = ax or plain(4.6, 4.1)
    if isinstance(results, Mapping):
        found = {name: _verification(result) for name, result in results.items()}
        if not found:
            raise DataError("a curve needs at least one result; got none")
        for (name, result), color, line in zip(found.items(), cycle(CYCLE), cycle(_LINES)):
            _curve(ax, result, _accepted, color=color, line=line, name=f"{name}: ")
        lowest = min(map(_lowest, found.values()))
    else:
        single = _verification(results)
        _curves(single, ax, _accepted, most=1.0)
        lowest = _lowest(single)
    ax.set(xscale="log", xlim=(lowest, 1), ylim=(0, 1.01))
    ax.xaxis.set_major_formatter(_decimal)
    return _dress(ax, "ROC", "true accept rate")


def _dress(ax: Axes, title: str, y: str) -> Axes:
    """Style axes with a legend below them, where it covers no curve."""
    dress(ax, title=title, x="false accept rate", y=y)
    legend(ax, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=1)
    return ax


def det(result: Result, *, ax: Axes | None = None) -> Axes:
    """Draw the DET curve: both error rates on normal-deviate scales, on which normal distances give a line.

    Args:
        result: An evaluation, or the result of `twinned.evaluation.evaluate_verification`.
        ax: Axes to draw on instead of a new figure.

    Raises:
        DataError: If there is no curve: genuine or impostor comparisons are missing.

    References:
        Martin et al., "The DET curve in assessment of detection task performance", Eurospeech 1997.
    """
    result = _verification(result)
    ax = ax or plain(4.6, 4.1)
    _curves(result, ax, lambda frr: frr, most=_WORST)
    low = max(_lowest(result), 1e-4)
    for axis, set_scale in ((ax.xaxis, ax.set_xscale), (ax.yaxis, ax.set_yscale)):
        set_scale("function", functions=(_deviate, _rate))
        axis.set_ticks([rate for rate in _RATES if rate >= low])
        axis.set_major_formatter(_decimal)
    ax.minorticks_off()
    ax.set(xlim=(low, _WORST), ylim=(low, _WORST))
    ax.plot([low, _WORST], [low, _WORST], color=GRAY, linewidth=0.8, linestyle=DOTTED, zorder=1)
    return _dress(ax, "DET", "false reject rate")


def overview(
    result: VerificationResult, comparisons: Comparisons, found: Reliability
) -> tuple[Axes, Axes, Axes, Axes]:
    """Draw ROC, DET, distances and reliability in one figure, and return their axes in this order.

    Args:
        result: Result of `twinned.evaluation.evaluate_verification`.
        comparisons: Comparisons behind the result.
        found: Result of `twinned.evaluation.reliability`.

    Raises:
        DataError: If there is no curve: genuine or impostor comparisons are missing.
        SettingError: If the model has no threshold.
    """
    if result.threshold is None:
        raise SettingError("These figures need a threshold, and the model has none")
    axes: tuple[Axes, Axes, Axes, Axes] = tuple(sheet(9.4, 8.4).subplots(2, 2).flat)
    roc(result, ax=axes[0])
    det(result, ax=axes[1])
    distances(comparisons, result.threshold, ax=axes[2])
    reliability(found, ax=axes[3])
    return axes


def _curves(result: VerificationResult, ax: Axes, height: Callable[[Any], Any], *, most: float) -> None:
    """Draw the parts that ROC and DET share: curves, bands, stored threshold, unsupported rates."""
    for kind, part in (result.parts or {"": result}).items():
        if part.roc is not None:
            line = _LINES[1] if kind == "random" else "-"
            name = f"against {_AGAINST[kind]}: " if kind else ""
            band = None if kind else "95 % interval"
            _curve(ax, part, height, color=_COLORS[kind], line=line, name=name, band=band)
    if result.far is not None and result.frr is not None:
        far, frr = np.clip([result.far, result.frr], _lowest(result), most)
        looks = Looks(color=INK, markersize=6.5, markerfacecolor=PAPER, markeredgewidth=1.4)
        ax.plot(far, height(frr), "o", **looks, label="stored threshold", zorder=5, clip_on=False)
    looks = Looks(facecolor="none", edgecolor=RULE, hatch="////", linewidth=0, zorder=0)
    ax.axvspan(_TINY, min(30 / result.n_impostor, 1), **looks, label="too few impostors")


def _verification(result: Result) -> VerificationResult:
    """Return the verification result of an evaluation, which must have a curve."""
    found = result.verification if isinstance(result, Evaluation) else result
    if found is None or found.roc is None:
        counts = "none" if found is None else f"{found.n_genuine} and {found.n_impostor}"
        raise DataError(f"a curve needs genuine and impostor comparisons; got {counts}")
    return found


def _curve(
    ax: Axes,
    result: VerificationResult,
    height: Callable[[Any], Any],
    *,
    color: str,
    line: Any,
    name: str,
    band: str | None = None,
) -> None:
    """Draw the curve of one result, and its interval; ``height`` is a function of the false reject rate.

    The legend has ``name`` with the EER, and ``band`` for the interval.
    """
    assert result.roc is not None
    curve = result.roc.thinned()
    looks = Looks(drawstyle="steps-post", color=color, linestyle=line, linewidth=1.6, zorder=3)
    frr = height(curve.frr.clip(_TINY, 1 - _TINY))
    ax.plot(curve.far.clip(_TINY), frr, **looks, label=f"{name}EER {result.eer:.3g}")
    if (found := result.band) is not None:
        low, high = (height(side.clip(_TINY, 1 - _TINY)) for side in (found.low, found.high))
        looks = Looks(step="post", color=color, alpha=0.16, linewidth=0, zorder=2)
        ax.fill_between(found.far.clip(_TINY), low, high, **looks, label=band)


def _decimal(value: float, _: object) -> str:
    return np.format_float_positional(value, precision=7, trim="-")


def _lowest(result: VerificationResult) -> float:
    """Return the lower end of the FAR axis: the decade of a single error, at least 1e-5."""
    return float(10.0 ** np.floor(np.log10(min(0.05, max(1 / result.n_impostor, 1e-5)) * 1.0001)))


def distances(comparisons: Comparisons, threshold: float, *, bins: int = 60, ax: Axes | None = None) -> Axes:
    """Draw histograms of the distances of same and different pairs, with the threshold.

    Each histogram has area 1. Filled parts are wrong decisions.

    Args:
        comparisons: Comparisons of one data set.
        threshold: ``same = distance <= threshold``.
        bins: Number of bins.
        ax: Axes to draw on instead of a new figure.
    """
    ax = ax or plain(4.6, 3.4)
    distance, same, forged = comparisons.distance, comparisons.same, comparisons.forged
    edges = np.linspace(min(0.0, float(distance.min())), float(distance.max()), bins + 1)
    if edges[0] == edges[-1]:
        edges = np.array([edges[0] - 0.5, edges[0] + 0.5])
    top = 0.0
    for name, chosen, color, line in (
        ("same", same, BLUE, "-"),
        ("different", ~same & ~forged, VERMILLION, "-"),
        ("skilled forgery", ~same & forged, INK, (0, (3, 1.5))),
    ):
        if not chosen.any():
            continue
        height, _ = np.histogram(distance[chosen], edges, density=True)
        top = max(top, float(height.max()))
        accepted = float((distance[chosen] <= threshold).mean())
        mistaken = f"{1 - accepted:.3f} missed" if name == "same" else f"{accepted:.3f} accepted"
        label = f"{name} ({chosen.sum():,}): {mistaken}"
        ax.stairs(height, edges, color=color, linewidth=1.4, linestyle=line, label=label)
        # The bin that contains the threshold is split there.
        cut = np.sort(np.append(edges, np.clip(threshold, edges[0], edges[-1])))
        middle = (cut[1:] + cut[:-1]) / 2
        wrong = (middle > threshold) == (name == "same")
        inside = height[np.clip(np.searchsorted(edges, middle) - 1, 0, len(height) - 1)]
        ax.stairs(np.where(wrong, inside, 0.0), cut, color=color, alpha=0.3, fill=True, linewidth=0)
    ax.axvline(threshold, color=INK, linewidth=1)
    ax.set(ylim=(0, top * 1.3), xlim=(edges[0], edges[-1]))
    beyond = threshold > edges.mean()
    place = Looks(offset=(-3 if beyond else 3, 0), ha="right" if beyond else "left")
    note(ax, f"threshold {threshold:.4g} ", (threshold, top * 1.29), **place, va="top", color=INK)
    dress(ax, title="Distances", x="distance (lower is closer); filled: wrong decisions", grid="x")
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    # Below the line that names the threshold.
    legend(ax, loc="upper left" if beyond else "upper right", bbox_to_anchor=(0, 0, 1, 0.94))
    return ax


def reliability(found: Reliability, *, ax: Axes | None = None) -> Axes:
    """Draw the reliability diagram: predicted P(same) against the observed fraction of same pairs.

    The line through each point is its 95 % interval, by resampling classes. The bars at the bottom show the
    number of comparisons of each point, on a logarithmic scale.

    Args:
        found: Result of `twinned.evaluation.reliability`.
        ax: Axes to draw on instead of a new figure.
    """
    ax = ax or plain(4.1, 4.1)
    ax.plot([0, 1], [0, 1], color=GRAY, linewidth=0.8, linestyle=DOTTED, zorder=1)
    weight = np.log10(found.comparisons.clip(1) + 1.0)
    ax.bar(found.stated, 0.13 * weight / weight.max(), width=0.035, color=RULE, zorder=1)
    ax.vlines(found.stated, found.low, found.high, color=BLUE, linewidth=1.2, alpha=0.45, zorder=2)
    line = Looks(color=BLUE, linewidth=1.4, markersize=4.5)
    ax.plot(found.stated, found.observed, "-o", **line, zorder=3, clip_on=False)
    bars = "bars: number of pairs, logarithmic"
    note(ax, bars, (1, 0.135), offset=(-4, 1), ha="right", va="bottom", fontsize=7)
    gray = Looks(size=8, color=GRAY, path_effects=halo(), zorder=2)
    words(ax, 0.26, 0.77, "predicted too low", **gray)
    words(ax, 0.74, 0.23, "predicted too high", **gray)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    dress(ax, title="Reliability", x="predicted P(same)", y="observed fraction")
    return ax


def confusion(truth: Sequence[str], answer: Sequence[str], *, most: int = 20, ax: Axes | None = None) -> Axes:
    """Draw the confusion matrix, one row per true class, as fractions of its images.

    Args:
        truth: True class of each image.
        answer: Predicted class of each image.
        most: Maximum number of classes; of more, those with the most errors are drawn.
        ax: Axes to draw on instead of a new figure.

    Raises:
        DataError: If there are no images, or not one answer for each.
    """
    if len(truth) != len(answer) or not len(truth):
        raise DataError(f"expected one answer per image, got {len(truth)} images and {len(answer)} answers")
    names, code = np.unique([*map(str, truth), *map(str, answer)], return_inverse=True)
    counts = np.zeros((len(names), len(names)))
    np.add.at(counts, tuple(code.reshape(2, -1)), 1)
    wrong = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    total = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    title = "Confusion matrix"
    if len(names) > most:
        title += f": the {most} hardest of {len(names)}"
        kept = np.sort(np.argsort(-wrong, kind="stable")[:most])
        names, share = names[kept], share[np.ix_(kept, kept)]
    side = max(0.45 * min(len(names), 6), 0.26 * len(names)) + 1.6
    ax = ax or plain(side, side)
    ax.imshow(share, cmap=ramp(PAPER, BLUE, "#00263d"), vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(share):
        if value > 0.005:
            text = f"{value:.2f}".lstrip("0") if value < 0.995 else "1"
            color = PAPER if value > 0.4 else INK
            words(ax, column, row, text, size=7 if len(names) > 6 else 9, color=color)
    dress(ax, title=title, x="predicted", y="true (rows add up to 1)", grid="")
    labels = [short(name, 18) for name in names]
    upright = max(map(len, labels)) > 3
    ax.set_xticks(range(len(names)), labels, rotation=90 if upright else 0, parse_math=False)
    ax.set_yticks(range(len(names)), labels, parse_math=False)
    edges = np.arange(len(names) + 1) - 0.5
    for lines in (ax.hlines, ax.vlines):
        lines(edges, edges[0], edges[-1], color=RULE, linewidth=0.5)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return ax
