"""Curves recover what made them; predictions, the power law, and what is refused."""

from __future__ import annotations

import io
import json
import math
import struct

import numpy as np
import pytest
from rich.console import Console

from concise_rl.errors import DataError, UserError
from concise_rl.reporting.fit import (
    SIGMOID,
    Points,
    fit_power_law,
    fit_sigmoid,
    fit_sizes,
    parameter_count,
    power_law,
    predict_end,
    read_points,
    sigmoid,
)
from concise_rl.reporting.fit_report import fit_runs, show_fits, write_fits

from .compare.fake import write_run

TRUE = {"R0": 0.30, "A": 0.61, "C_mid": 25.0, "B": 1.92}
STEPS = np.arange(1, 101, dtype=np.float64)


def noisy(seed: int, spread: float = 0.01) -> np.ndarray:
    return sigmoid(STEPS, *TRUE.values()) + np.random.default_rng(seed).normal(0, spread, len(STEPS))


def test_the_sigmoid_at_worked_points() -> None:
    assert sigmoid(25.0, *TRUE.values()) == pytest.approx((0.30 + 0.61) / 2), "half way at C_mid"
    # (C_mid / C)^B at C = 2 C_mid, B = 2 is 1/4, so 4/5 of the way is gone.
    assert sigmoid(20.0, 0.2, 0.7, 10.0, 2.0) == pytest.approx(0.2 + 0.8 * 0.5)
    assert sigmoid(1e-9, *TRUE.values()) == pytest.approx(0.30)
    assert sigmoid(1e12, *TRUE.values()) == pytest.approx(0.61)


def test_a_curve_without_noise_is_recovered() -> None:
    fit = fit_sigmoid(STEPS, sigmoid(STEPS, *TRUE.values()), (0, 1))
    for name, value in TRUE.items():
        assert fit.values[name] == pytest.approx(value, rel=1e-3), name
    assert fit.r_squared == pytest.approx(1)
    assert fit.residual < 1e-5


def test_intervals_cover_the_truth_and_narrow_with_the_noise() -> None:
    covered = np.zeros(4)
    widths = {}
    for spread in (0.02, 0.005):
        fits = [fit_sigmoid(STEPS, noisy(seed, spread), (0, 1)) for seed in range(3)]
        for fit in fits:
            covered += [fit.intervals[name][0] <= TRUE[name] <= fit.intervals[name][1] for name in SIGMOID]
        widths[spread] = np.mean([fit.intervals["A"][1] - fit.intervals["A"][0] for fit in fits])
    assert (covered >= 4).all(), f"of 6 each: {covered}"
    assert widths[0.005] < 0.5 * widths[0.02]


def test_the_first_half_foretells_the_end_unless_the_run_breaks() -> None:
    foreseen = [predict_end(STEPS, noisy(seed), (0, 1)) for seed in range(6)]
    assert sum(prediction.held for prediction in foreseen) >= 4
    score, prediction = noisy(1), foreseen[1]
    assert prediction.points == 10
    assert prediction.observed == pytest.approx(score[-10:].mean())
    assert prediction.interval[0] < prediction.predicted < prediction.interval[1]
    broken = np.where(STEPS > 70, 0.1, score)
    collapsed = predict_end(STEPS, broken, (0, 1))
    assert not collapsed.held
    assert collapsed.predicted == prediction.predicted, "the second half is not looked at"


def test_a_constant_is_told_from_a_curve() -> None:
    flat = 0.5 + np.random.default_rng(3).normal(0, 0.02, 40)
    assert fit_sigmoid(STEPS[:40], flat, (0, 1)).p_constant > 0.05
    assert fit_sigmoid(STEPS, noisy(1), (0, 1)).p_constant < 1e-6


def power_runs(sizes: dict[int, float]) -> list[Points]:
    draw = np.random.default_rng(0)
    return [
        Points(str(n), STEPS, 1 - power_law(STEPS, k, -0.3) + draw.normal(0, 0.005, len(STEPS)), n)
        for n, k in sizes.items()
    ]


def test_the_power_law_and_its_saturation_with_size_are_recovered() -> None:
    assert power_law(100.0, 0.5, math.log(0.8)) == pytest.approx(0.08)
    k_max, n_0 = 0.4, 2e7
    runs = power_runs({n: k_max / (1 + n_0 / n) for n in (10**6, 10**7, 10**8, 10**9)})
    laws = fit_power_law(runs)
    for n, law in laws.items():
        assert law.values["k"] == pytest.approx(k_max / (1 + n_0 / n), abs=0.01)
        assert law.values["E"] == pytest.approx(-0.3, abs=0.02)
    sizes = fit_sizes(laws)
    assert sizes.values["K_max"] == pytest.approx(k_max, abs=0.01)
    assert sizes.values["N_0"] == pytest.approx(n_0, rel=0.1)
    assert fit_sizes(fit_power_law(runs[:2])) is None, "two sizes fix two parameters whatever the law"


def test_runs_of_one_size_share_a_law_and_a_step_without_errors_counts() -> None:
    (run,) = power_runs({1000: 0.5})
    perfect = Points("perfect", STEPS, np.where(STEPS > 50, 1.0, run.score), 1000)
    laws = fit_power_law([run, perfect])
    assert list(laws) == [1000]
    assert laws[1000].values["k"] > fit_power_law([run])[1000].values["k"]


def test_points_of_a_run(tmp_path) -> None:
    folder = write_run(tmp_path / "run", steps=20)
    assert read_points(folder, "run", "mean_tokens", "seconds").resource.tolist() == [2.0 * k for k in range(1, 21)]
    assert read_points(folder, "run", against="num_tokens").resource[-1] == 20_000
    assert len(read_points(folder, "run", "entropy").score) == 19, "a step that was not finite is passed over"
    (folder / "model").mkdir()
    header = json.dumps({"__metadata__": {}, "w": {"shape": [3, 4]}, "b": {"shape": [5]}}).encode()
    (folder / "model" / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    assert parameter_count(folder / "model") == 17
    assert read_points(folder, "run").parameters == 17


def test_the_command_shows_and_writes_it(tmp_path) -> None:
    runs = [write_run(tmp_path / name, seed=seed) for name, seed in (("one [x]", 0), ("two", 1))]
    fits = fit_runs(runs)
    out = io.StringIO()
    show_fits(fits, "accuracy", "step", Console(file=out, width=100))
    assert "one [x]: the first half predicted" in out.getvalue()
    assert "power law" in out.getvalue()
    paths = write_fits(fits, tmp_path / "fit", "accuracy", "step")
    assert [path.name for path in paths] == ["fit.json", "sigmoid.svg", "power_law.svg"]
    numbers = json.loads(paths[0].read_text())["runs"]["two"]
    assert numbers["values"]["A"] == pytest.approx(0.9, abs=0.05), "the fake run rises from 0.5 to 0.9"
    assert numbers["prediction"]["held"] in (True, False)


def test_bad_input_is_refused_in_one_clear_line(tmp_path) -> None:
    folder = write_run(tmp_path / "run")
    with pytest.raises(UserError, match="holds 1 points of accuracy against step, a fit needs 10: train longer"):
        fit_runs([write_run(tmp_path / "short", steps=1)])
    with pytest.raises(UserError, match="did you mean accuracy"):
        fit_runs([folder], "acuracy")
    with pytest.raises(UserError, match="choose from step, num_tokens, seconds"):
        fit_runs([folder], against="hours")
    with pytest.raises(DataError, match="name the folder of a run"):
        fit_runs([tmp_path])
    with pytest.raises(UserError, match="given twice"):
        fit_runs([folder, folder])
    (folder / "model").mkdir()
    (folder / "model" / "model.safetensors").write_bytes(b"short")
    with pytest.raises(DataError, match="no safetensors file"):
        fit_runs([folder])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("{")
    with pytest.raises(DataError, match="line 41 is damaged"):
        fit_runs([folder])
