"""Run folders and evaluations, read for comparison: judged completions, and of a run its training curve too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from concise_rl.errors import DataError, UserError
from concise_rl.evaluation import Evaluation
from concise_rl.reporting.compare import schema
from concise_rl.reporting.compare.settings import evaluation_settings, pooled_settings, run_settings
from concise_rl.reporting.plots import Metrics
from concise_rl.reporting.run_log import (
    CONFIG_FILE,
    METRICS_FILE,
    SUMMARY_FILE,
    read_config,
    read_metrics,
    read_summary,
)

BEFORE_FILE, AFTER_FILE, EVALUATION_FILE = "evaluation-before.jsonl", "evaluation-after.jsonl", "evaluation.jsonl"

UNNAMED = "test split"
"""The benchmark of an evaluation that does not name one."""

BEFORE = "before training"


@dataclass(frozen=True)
class Entry:
    """One thing compared: a trained model, a model before training, or an evaluated checkpoint.

    Attributes:
        name: shown, unique.
        method: runs of one method share a colour; the name where there is no run.
        evaluations: benchmark to its judged completions.
        metrics: lines of metrics.jsonl, empty where there was no training.
        budget_curves: benchmark to what a budget sweep found (`concise_rl.evaluation.measures.curve_summary`).
        settings: dotted names to values as text, as the run or the evaluation wrote them down.
        effort_curves: benchmark to what a sweep over levels of effort found (`concise_rl.evaluation.efforts`).
        pooled: the runs whose completions and training are this entry's, such as a method's seeds; mostly none.
    """

    name: str
    method: str
    evaluations: Mapping[str, Evaluation]
    metrics: Metrics = ()
    budget_curves: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    effort_curves: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pooled: Sequence[Entry] = ()


def load_entries(paths: Sequence[str | Path]) -> list[Entry]:
    """Everything that the paths hold, in their order, the model before training first.

    A path is a run folder, a folder of `concise-rl eval` (of one benchmark, or with a folder a benchmark), or one
    evaluation's JSONL file. `NAME=PATH,PATH,...` is one entry of several, such as a method's seeds. What runs had
    before training is one entry where it is the same in all, and one a run where it is not. An evaluation that does not
    name its benchmark goes with one of the same problems that does.

    Raises:
        DataError: a path that is none of these, or a damaged file, named.
        UserError: no path, one path or name twice, evaluations of one benchmark that hold different problems, or runs
            under one name that were evaluated on different benchmarks.
    """
    if not paths:
        raise UserError("nothing to compare: name a run folder, an evaluation folder or an evaluation's .jsonl")
    groups = [_group(path) for path in paths]
    found = [path for _, members in groups for path in members]
    befores: list[Entry] = []
    loaded: list[Entry] = []
    for path, name in zip(found, shortest_names(found), strict=True):
        if path.is_file():
            loaded.append(Entry(name, name, {UNNAMED: _evaluation(path)}))
        elif (path / METRICS_FILE).exists():
            loaded.append(_run(path, name))
            if (path / BEFORE_FILE).exists():
                befores.append(Entry(f"{name}, before", BEFORE, {UNNAMED: _evaluation(path / BEFORE_FILE)}))
        else:
            loaded.append(_evaluated(path, name))
    before = _merged(befores)
    entries = _named([*before, *loaded])
    _check_problems(entries)
    rest = iter(entries[len(before) :])
    grouped = [(name, [next(rest) for _ in members]) for name, members in groups]
    entries = entries[: len(before)] + [_pooled(name, own) if name else own[0] for name, own in grouped]
    _check_names(entries)
    return entries


def _group(path: str | Path) -> tuple[str, list[Path]]:
    """The name and the members of `NAME=PATH,PATH,...`; no name and the path itself where it is one path."""
    name, equals, members = str(path).partition("=")
    if isinstance(path, Path) or not equals or "/" in name or Path(path).exists():
        return "", [Path(path)]
    if not name or not all(members.split(",")):
        raise UserError(f"{path}: several runs as one are written NAME=FOLDER,FOLDER,...")
    return name, [Path(member) for member in members.split(",")]


def _pooled(name: str, members: Sequence[Entry]) -> Entry:
    """One entry of all completions; its training is the mean over the runs of each step that all have."""
    first = members[0]
    for other in members[1:]:
        if other.evaluations.keys() != first.evaluations.keys():
            raise UserError(
                f"{name}: {first.name} was evaluated on {', '.join(first.evaluations) or 'nothing'}, {other.name} on "
                f"{', '.join(other.evaluations) or 'nothing'}; runs under one name need the same benchmarks"
            )
    methods = {member.method for member in members}
    return Entry(
        name,
        first.method if len(methods) == 1 and first.metrics else name,
        {
            benchmark: Evaluation.pooled([member.evaluations[benchmark] for member in members])
            for benchmark in first.evaluations
        },
        _mean_metrics([member.metrics for member in members]),
        settings=pooled_settings([member.settings for member in members]),
        pooled=members,
    )


def _mean_metrics(runs: Sequence[Metrics]) -> Metrics:
    by_step = [{line["step"]: line for line in lines} for lines in runs]
    means = []
    for step in [step for step in by_step[0] if all(step in lines for lines in by_step)]:
        lines = [own[step] for own in by_step]
        numbers = [k for k, v in lines[0].items() if all(isinstance(line.get(k), int | float) for line in lines)]
        means.append({key: sum(line[key] for line in lines) / len(lines) for key in numbers} | {"step": step})
    return means


def _check_names(entries: Sequence[Entry]) -> None:
    names = Counter(entry.name for entry in entries)
    twice = next((name for name, count in names.items() if count > 1), None)
    if twice is not None:
        raise UserError(f"two entries are named {twice}: give one another name")


def shortest_names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart; a file named by default goes by its folder."""
    resolved = [path.resolve() for path in paths]
    if len(set(resolved)) < len(resolved):
        twice = next(path for path in paths if resolved.count(path.resolve()) > 1)
        raise UserError(f"{twice} is given twice: name each run once")
    parts = [(path.parent if path.name == EVALUATION_FILE else path.with_suffix("") if path.is_file() else path).parts
             for path in resolved]  # fmt: skip
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise UserError(f"{paths[0]} and another path name the same evaluation: name each once")


def _run(path: Path, name: str) -> Entry:
    metrics = _metrics(path)
    after = path / AFTER_FILE
    if not metrics and not after.exists():
        raise DataError(f"{path} holds a run without a step: train it first, or leave it out")
    config = read_config(path) if (path / CONFIG_FILE).exists() else {}
    schema.check(config, schema.CONFIG, path / CONFIG_FILE, "")
    method = config.get("method", {}).get("name", name)
    evaluations = {UNNAMED: _evaluation(after)} if after.exists() else {}
    return Entry(name, method, evaluations, metrics, settings=run_settings(path, config))


def _evaluated(path: Path, name: str) -> Entry:
    """A folder of one benchmark, or one with a folder a benchmark."""
    if not path.exists():
        raise DataError(f"{path} does not exist: name a run folder, an evaluation folder or its .jsonl")
    folders = (
        [path] if (path / EVALUATION_FILE).exists() else sorted(f.parent for f in path.glob(f"*/{EVALUATION_FILE}"))
    )
    if not folders:
        raise DataError(
            f"{path} is no run and no evaluation: neither {METRICS_FILE} nor {EVALUATION_FILE} is in it; "
            "name the folder that `concise-rl train` or `concise-rl eval` wrote"
        )
    evaluations, curves, efforts = {}, {}, {}
    for folder in folders:
        summary = read_summary(folder) if (folder / SUMMARY_FILE).exists() else {}
        schema.check(summary, schema.SUMMARY, folder / SUMMARY_FILE, "")
        benchmark = summary.get("benchmark", UNNAMED if folder == path else folder.name)
        evaluations[benchmark] = _evaluation(folder / EVALUATION_FILE)
        if summary.get("budget_curve"):
            curves[benchmark] = summary["budget_curve"]
        if summary.get("effort_curve"):
            efforts[benchmark] = summary["effort_curve"]
    settings = evaluation_settings(next(iter(evaluations.values())).settings)
    return Entry(name, name, evaluations, budget_curves=curves, effort_curves=efforts, settings=settings)


def _metrics(path: Path) -> Metrics:
    lines = read_metrics(path)
    for number, line in enumerate(lines, start=1):
        for name, value in line.items():
            kind = schema.STEP if name == "step" else schema.ANY_NUMBER
            schema.check(value, kind, path / METRICS_FILE, f"{name} in line {number}")
    return lines


def _evaluation(path: Path) -> Evaluation:
    loaded = Evaluation.load(path)
    schema.check(loaded.settings, schema.SETTINGS, path, "settings")
    if not loaded.rows:
        raise DataError(f"{path} holds no completion: evaluate again, or leave it out")
    samples = loaded.settings.get("samples", 1)
    missing = sum(-count % samples for count in Counter(row.prompt_id for row in loaded.rows).values())
    if missing:
        raise DataError(
            f"{path} lacks {missing} of the {samples} completions a problem, it was interrupted: give the same "
            "`concise-rl eval` again, it goes on from there"
        )
    return loaded


def _merged(befores: Sequence[Entry]) -> list[Entry]:
    """One entry where all say the same of the same problems."""
    if not befores:
        return []
    first = befores[0].evaluations[UNNAMED].rows
    if all(list(entry.evaluations[UNNAMED].rows) == list(first) for entry in befores[1:]):
        return [Entry(BEFORE, BEFORE, befores[0].evaluations)]
    return list(befores)


def _named(entries: Sequence[Entry]) -> list[Entry]:
    """Evaluations without a name under that of a benchmark with the same problems, where there is one."""
    problems = {
        frozenset(row.prompt_id for row in evaluation.rows): benchmark
        for entry in entries
        for benchmark, evaluation in entry.evaluations.items()
        if benchmark != UNNAMED
    }
    return [
        replace(
            entry,
            evaluations={
                problems.get(frozenset(row.prompt_id for row in found.rows), name) if name == UNNAMED else name: found
                for name, found in entry.evaluations.items()
            },
        )
        for entry in entries
    ]


def _check_problems(entries: Sequence[Entry]) -> None:
    """Averages over different problems say nothing about a difference: refuse them."""
    first: dict[str, tuple[str, set[str]]] = {}
    for entry in entries:
        for benchmark, evaluation in entry.evaluations.items():
            problems = {row.prompt_id for row in evaluation.rows}
            name, expected = first.setdefault(benchmark, (entry.name, problems))
            if problems != expected:
                raise UserError(
                    f"{name} and {entry.name} hold different problems of {benchmark}: {len(expected - problems)} of "
                    f"{len(expected)} are only in the first, {len(problems - expected)} of {len(problems)} only in "
                    "the second; evaluate both on one split and limit, or compare them apart"
                )
