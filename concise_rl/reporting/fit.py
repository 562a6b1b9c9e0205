"""How a run's score grows with compute: a sigmoid for one run, a power law over several.

Sigmoid, ScaleRL (arXiv 2510.13786): the score after compute C, between its start R0 and its ceiling A, is

    R(C) = R0 + (A - R0) / (1 + (C_mid / C)^B),

half way at C_mid, the steeper the larger B. Power law, arXiv 2509.25300: the share of wrong answers L = 1 - R of a
model of N parameters after X steps, tokens or seconds obeys

    log L = -k(N) log X + E(N),    k(N) = K_max / (1 + N_0 / N).

Differs from the papers: all four parameters of the sigmoid are fitted together, from the best of a grid of starts,
where ScaleRL walks a grid of A and C_mid; nothing at the beginning is left out; the power law is fitted to L and not to
log L, because a step without a wrong answer has no logarithm. Intervals are 95 % percentile intervals of a bootstrap
that resamples residuals: they say how well the points fix the curve if the curve is of the right form.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from concise_rl.errors import DataError, UserError
from concise_rl.reporting.glossary import describe
from concise_rl.reporting.run_log import read_metrics

RESAMPLES = 200
COVERAGE = (2.5, 97.5)
SEED = 0
FEWEST_POINTS = 10
"""Its half still leaves a point more than the sigmoid has parameters."""

RESOURCES = ("step", "num_tokens", "seconds")
Interval = tuple[float, float]


@dataclass(frozen=True)
class Points:
    """A run's measured points.

    Attributes:
        name: of the run.
        resource: (n,) compute spent, ascending, above 0.
        score: (n,) as stored, a fraction where the metric's unit is %.
        parameters: N of the model, None where the run kept no weights.
    """

    name: str
    resource: np.ndarray
    score: np.ndarray
    parameters: int | None = None


@dataclass(frozen=True)
class Fit:
    """Fitted parameters with intervals.

    Attributes:
        values: parameter to value.
        intervals: parameter to its 95 % interval.
        residual: root mean square of what the curve leaves, with the parameters counted.
        r_squared: share of the variance that the curve explains.
        p_constant: F test against a constant: the chance of as good a fit if the score did not change at all.
        resampled: (B, K) parameters of each bootstrap resample, in the order of `values`.
        residuals: (n,) of the fit.
    """

    values: Mapping[str, float]
    intervals: Mapping[str, Interval]
    residual: float
    r_squared: float
    p_constant: float
    resampled: np.ndarray = field(repr=False)
    residuals: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class Prediction:
    """The end of a run from its first half.

    Attributes:
        predicted: mean score of the last points as the first half's curve has it.
        interval: where that mean is expected, the scatter of so many points included.
        observed: the mean that came.
        points: how many are last: a tenth, three or more.
    """

    predicted: float
    interval: Interval
    observed: float
    points: int

    @property
    def held(self) -> bool:
        return self.interval[0] <= self.observed <= self.interval[1]


# --- reading ----------------------------------------------------------------------------------------------------------


def read_points(folder: str | Path, name: str, metric: str = "accuracy", against: str = "step") -> Points:
    """A run's points from metrics.jsonl and, where it kept its weights, their number.

    Args:
        folder: of the run.
        name: shown.
        metric: key of metrics.jsonl; steps without it are passed over.
        against: `step`, `num_tokens`, or `seconds`, the sum of `step_time`.

    Raises:
        DataError: no run, or a damaged line.
        UserError: fewer than `FEWEST_POINTS` points, or no such metric or resource.
    """
    if against not in RESOURCES:
        raise UserError(f"--against {against!r}: choose from {', '.join(RESOURCES)}")
    lines = read_metrics(folder)
    found = []
    seconds = 0.0
    for line in lines:
        seconds += line.get("step_time", math.nan)
        spent = seconds if against == "seconds" else line.get(against, math.nan)
        if spent > 0 and math.isfinite(line.get(metric, math.nan)):
            found.append((spent, line[metric]))
    if len(found) < FEWEST_POINTS:
        near = get_close_matches(metric, lines[0] if lines else (), n=1)
        hint = f"did you mean {near[0]}?" if near and near[0] != metric else "train longer, or choose another metric"
        raise UserError(
            f"{folder} holds {len(found)} points of {metric} against {against}, a fit needs {FEWEST_POINTS}: {hint}"
        )
    resource, score = np.array(sorted(found), dtype=np.float64).T
    return Points(name, resource, score, parameter_count(Path(folder) / "model"))


def parameter_count(model: Path) -> int | None:
    """Weights in a folder's model*.safetensors, from their headers alone; None where there are none.

    Raises:
        DataError: a file that is no safetensors.
    """
    files = sorted(model.glob("model*.safetensors"))
    total = 0
    for path in files:
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(length))
        except (OSError, ValueError, struct.error) as error:
            raise DataError(f"{path} is no safetensors file ({error}): train again, or remove the folder") from error
        total += sum(math.prod(entry["shape"]) for key, entry in header.items() if key != "__metadata__")
    return total if files else None


# --- sigmoid ----------------------------------------------------------------------------------------------------------

SIGMOID = ("R0", "A", "C_mid", "B")


def sigmoid(compute: Any, r0: Any, a: Any, c_mid: Any, b: Any) -> Any:
    """R(C); see the module. Broadcasts."""
    return r0 + (a - r0) / (1 + np.exp(-b * (np.log(compute) - np.log(c_mid))))


def fit_sigmoid(compute: np.ndarray, score: np.ndarray, limits: Interval = (-math.inf, math.inf)) -> Fit:
    """The sigmoid nearest to the points by least squares.

    C_mid is sought from a tenth of the least to a hundred times the largest compute, B from 0.1 to 20.

    Args:
        compute: (n,) above 0, five values or more.
        score: (n,).
        limits: of R0 and A, (0, 1) for a fraction.
    """
    log_c = np.log(compute)
    low = np.array([limits[0], limits[0], log_c.min() - math.log(10), math.log(0.1)])
    high = np.array([limits[1], limits[1], log_c.max() + math.log(100), math.log(20)])

    def curve(x: np.ndarray, r0: float, a: float, log_mid: float, log_b: float) -> np.ndarray:
        return sigmoid(np.exp(x), r0, a, math.exp(log_mid), math.exp(log_b))

    def slopes(x: np.ndarray, r0: float, a: float, log_mid: float, log_b: float) -> np.ndarray:
        b = math.exp(log_b)
        u = b * (x - log_mid)
        share = 1 / (1 + np.exp(-u))
        steep = (a - r0) * share * (1 - share)
        return np.stack([1 - share, share, -b * steep, u * steep], axis=1)

    start = np.clip(_sigmoid_start(log_c, score, low, high), low, high)
    fitted, resampled = _fit(curve, slopes, log_c, score, start, (low, high))
    back = np.array([False, False, True, True])
    resampled = np.where(back, np.exp(resampled), resampled)
    return _summary(SIGMOID, np.where(back, np.exp(fitted), fitted), resampled, score, curve(log_c, *fitted))


def _sigmoid_start(log_c: np.ndarray, score: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The best of a grid of C_mid and B: given these two, R0 and A are a linear regression."""
    best, least = np.zeros(4), math.inf
    for log_mid in np.linspace(low[2], high[2], 40):
        for log_b in np.log([0.3, 0.7, 1.5, 3, 6, 12]):
            share = 1 / (1 + np.exp(-math.exp(log_b) * (log_c - log_mid)))
            design = np.stack([1 - share, share], axis=1)
            ends = np.clip(np.linalg.lstsq(design, score, rcond=None)[0], low[:2], high[:2])
            error = float(((design @ ends - score) ** 2).sum())
            if error < least:
                best, least = np.array([*ends, log_mid, log_b]), error
    return best


def predict_end(compute: np.ndarray, score: np.ndarray, limits: Interval = (-math.inf, math.inf)) -> Prediction:
    """The mean of the last tenth of the points, from the curve of those in the first half of the compute."""
    early = compute <= compute[-1] / 2
    if early.sum() < len(SIGMOID) + 1:
        raise UserError(
            f"{early.sum()} points lie in the first half of the compute, a sigmoid needs {len(SIGMOID) + 1}: "
            "train longer"
        )
    fit = fit_sigmoid(compute[early], score[early], limits)
    last = max(3, len(compute) // 10)
    ends_B = sigmoid(compute[-last:], *fit.resampled.T[:, :, None]).mean(axis=1)
    generator = np.random.default_rng(SEED)
    scatter_B = generator.choice(fit.residuals, size=(RESAMPLES, last)).mean(axis=1)
    low, high = np.clip(np.percentile(ends_B + scatter_B, COVERAGE), *limits)
    predicted = sigmoid(compute[-last:], *fit.values.values()).mean()
    return Prediction(float(predicted), (float(low), float(high)), float(score[-last:].mean()), last)


# --- power law --------------------------------------------------------------------------------------------------------


def power_law(resource: Any, k: Any, e: Any) -> Any:
    """L(X) = exp(E) X^-k. Broadcasts."""
    return np.exp(e - k * np.log(resource))


def fit_power_law(runs: Sequence[Points]) -> dict[int | None, Fit]:
    """Number of parameters to k and E over all its runs together."""
    fits = {}
    for size in dict.fromkeys(run.parameters for run in runs):
        same = [run for run in runs if run.parameters == size]
        log_x = np.log(np.concatenate([run.resource for run in same]))
        loss = 1 - np.concatenate([run.score for run in same])

        def curve(x: np.ndarray, k: float, e: float) -> np.ndarray:
            return np.exp(e - k * x)

        def slopes(x: np.ndarray, k: float, e: float) -> np.ndarray:
            return np.stack([-x, np.ones_like(x)], axis=1) * curve(x, k, e)[:, None]

        start = np.array([0.1, math.log(max(loss.mean(), 1e-6))])
        fitted, resampled = _fit(curve, slopes, log_x, loss, start, (np.full(2, -np.inf), np.full(2, np.inf)))
        fits[size] = _summary(("k", "E"), fitted, resampled, loss, curve(log_x, *fitted))
    return fits


def fit_sizes(fits: Mapping[int | None, Fit]) -> Fit | None:
    """K_max and N_0 of k(N) over three sizes or more, weighted by how well each k is known; None for fewer sizes."""
    known = {size: fit for size, fit in fits.items() if size is not None}
    if len(known) < 3:
        return None
    sizes = np.array(list(known), dtype=np.float64)
    k = np.array([fit.values["k"] for fit in known.values()])
    spread = np.array([fit.resampled[:, 0].std() for fit in known.values()])
    weight = 1 / np.maximum(spread, 1e-12)

    def curve(n: np.ndarray, k_max: float, log_n0: float) -> np.ndarray:
        return weight * k_max / (1 + np.exp(log_n0 - np.log(n)))

    from scipy.optimize import curve_fit

    limits = ([0.0, math.log(sizes.min()) - 10], [np.inf, math.log(sizes.max()) + 10])
    start = [max(1e-6, k.max()), math.log(np.median(sizes))]
    fitted, _ = curve_fit(curve, sizes, weight * k, start, bounds=limits, maxfev=2000)
    # Each resample takes one resampled k of every size: the sizes' own uncertainty is what there is.
    draws = np.stack([fit.resampled[:, 0] for fit in known.values()], axis=1)
    resampled = np.array(
        [curve_fit(curve, sizes, weight * row, fitted, bounds=limits, maxfev=2000)[0] for row in draws]
    )
    fitted[1], resampled[:, 1] = math.exp(fitted[1]), np.exp(resampled[:, 1])
    return _summary(("K_max", "N_0"), fitted, resampled, k, fitted[0] / (1 + fitted[1] / sizes))


# --- least squares and bootstrap --------------------------------------------------------------------------------------


def _fit(
    curve: Callable[..., np.ndarray],
    slopes: Callable[..., np.ndarray],
    x: np.ndarray,
    y: np.ndarray,
    start: np.ndarray,
    bounds: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Parameters (K,), and those of each of `RESAMPLES` resamples of the residuals (B, K)."""
    from scipy.optimize import least_squares

    def nearest(values: np.ndarray, begin: np.ndarray, evaluations: int) -> np.ndarray:
        # Where the points leave a parameter open there is a ridge without a lowest point: any of it will do.
        inside = np.clip(begin, bounds[0] + 1e-9, bounds[1] - 1e-9)
        return least_squares(
            lambda p: curve(x, *p) - values,
            inside,
            lambda p: slopes(x, *p),
            bounds,
            ftol=1e-6,
            xtol=1e-6,
            max_nfev=evaluations,
        ).x

    fitted = nearest(y, start, 200)
    mean = curve(x, *fitted)
    generator = np.random.default_rng(SEED)
    # The fit has bent towards the points: without the factor its residuals are too small by the parameters it spent.
    residuals = (y - mean) * math.sqrt(len(x) / max(1, len(x) - len(start)))
    # Few steps lead from the fit to a resample's; more are only ever spent on walking along a ridge.
    resampled = [nearest(mean + generator.choice(residuals, size=len(x)), fitted, 20) for _ in range(RESAMPLES)]
    return fitted, np.array(resampled)


def _summary(names: Sequence[str], fitted: np.ndarray, resampled: np.ndarray, y: np.ndarray, mean: np.ndarray) -> Fit:
    low, high = np.percentile(resampled, COVERAGE, axis=0)
    freedom = max(1, len(y) - len(names))
    spread = float(((y - y.mean()) ** 2).sum())
    squares = float(((y - mean) ** 2).sum())
    explained = max(0.0, spread - squares) / max(1, len(names) - 1)
    from scipy.stats import f

    return Fit(
        values={name: float(value) for name, value in zip(names, fitted, strict=True)},
        intervals={name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)},
        residual=math.sqrt(squares / freedom),
        r_squared=1 - squares / spread if spread else math.nan,
        p_constant=float(f.sf(explained / (squares / freedom), len(names) - 1, freedom)) if squares else 0.0,
        resampled=resampled,
        residuals=y - mean,
    )


def limits_of(metric: str) -> Interval:
    """Where a metric can be: a fraction between 0 and 1."""
    return (0.0, 1.0) if describe(metric).unit == "%" else (-math.inf, math.inf)
