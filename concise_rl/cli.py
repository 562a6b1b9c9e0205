"""`concise-rl` and its commands. Light at the top, so that `--help` answers at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from concise_rl.commands.texts import COMPLETION, HELP, PLAN
from concise_rl.errors import printable, show_printable_tracebacks


def main(argv: Sequence[str] | None = None) -> None:
    """Dispatch to a command; every error that a person can mend is one line and exit code 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in ("-h", "--help", "help"):
        print(HELP, end="")
        return
    if command == "--version":
        from importlib.metadata import version

        print(f"concise-rl {version('concise-rl')}")
        return
    if command not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(COMMANDS)}"
        sys.stderr.write(f"error: there is no command {command!r}; {hint}\n")
        sys.exit(2)
    sys.argv = [f"concise-rl {command}", *rest]
    show_printable_tracebacks()
    try:
        COMMANDS[command](rest)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("CONCISE_RL_TRACEBACK"):
            raise
        # A file or a server may have put anything into it.
        sys.stderr.write(f"error: {printable(' '.join(str(error).split()))}\n")
        sys.exit(2)


def train(_: Sequence[str]) -> None:
    from concise_rl.commands import train

    train.main()


def evaluate(_: Sequence[str]) -> None:
    from concise_rl.commands import evaluate

    evaluate.main()


def sample(_: Sequence[str]) -> None:
    from concise_rl.commands import sample

    sample.main()


def select(_: Sequence[str]) -> None:
    from concise_rl.commands import select

    select.main()


def tune(_: Sequence[str]) -> None:
    from concise_rl.commands import tune

    tune.main()


def pipeline(arguments: Sequence[str]) -> None:
    from concise_rl.commands import pipeline

    pipeline.main(arguments)


def merge(arguments: Sequence[str]) -> None:
    """Average two models weight by weight; with --sweep, evaluate the average at several shares as one curve."""
    parser = argparse.ArgumentParser(prog="concise-rl merge", description=merge.__doc__)
    parser.add_argument("a", help="a folder of safetensors, or embedded:tiny")
    parser.add_argument("b", help="another of the same shape")
    parser.epilog = "KEY=VALUE, anywhere: overrides of concise-rl eval, for --sweep."
    parser.add_argument("--weight", type=float, default=0.5, help="of a (default 0.5)")
    parser.add_argument("--sweep", help="shares of a, such as 0,0.25,0.5,0.75,1: one folder each under --out")
    parser.add_argument("--out", type=Path, required=True, help="the merged model's folder")
    overrides = [item for item in arguments if "=" in item and not item.startswith("-") and not Path(item).exists()]
    options = parser.parse_args([item for item in arguments if item not in overrides])

    if options.sweep:
        from concise_rl.commands.merge import sweep

        sweep(options.a, options.b, options.sweep, options.out, overrides)
        return
    from concise_rl.offline.merge import merge as merge_models

    count = merge_models(options.a, options.b, options.out, options.weight)
    print(f"{options.out}: {count} tensors, {options.weight:g} x {options.a} + {1 - options.weight:g} x {options.b}")


def replay(arguments: Sequence[str]) -> None:
    """Re-shape a run's stored rollouts with any method, without a model."""
    parser = argparse.ArgumentParser(prog="concise-rl replay", description=replay.__doc__)
    parser.add_argument("run", type=Path, help="a run folder with rollouts.jsonl")
    parser.add_argument("methods", nargs="*", help="method recipes (none: all that the rows allow), and overrides")
    parser.add_argument("--csv", type=Path, help="also write every row's reward and credit here")
    options = parser.parse_args(arguments)

    from dataclasses import replace

    from concise_rl.commands import config
    from concise_rl.evaluation.replay import AS_IN_RUN, as_in_run, can_serve
    from concise_rl.evaluation.replay import replay as replay_batches
    from concise_rl.methods import method_names
    from concise_rl.reporting.replay_table import show_replay, write_rows
    from concise_rl.reporting.run_log import read_rollouts

    overrides = [item for item in options.methods if "=" in item]
    names = [item for item in options.methods if "=" not in item]
    steps = list(read_rollouts(options.run))
    if not steps:
        raise ValueError(f"{options.run}: rollouts.jsonl holds no step; train with run.rollouts_every=1")
    methods = {}
    for name in names or method_names():
        method = config.method_of(config.compose([f"method={name}", *overrides]))
        if names or can_serve(method.needs, steps[0].batch):
            methods[name] = method
    # Each method leaves out rows by its own filters, not by those of the run.
    result = replay_batches([(step.batch.replace(counts=step.batch.scorable), None) for step in steps], methods)
    own, own_rows = as_in_run((step.batch, step.reward, step.credit) for step in steps)
    result = replace(result, methods={AS_IN_RUN: own, **result.methods}, rows=[*own_rows, *result.rows])
    show_replay(result)
    if options.csv:
        write_rows(result, options.csv)


def methods(arguments: Sequence[str]) -> None:
    """The built-in methods and selectors: what each is made of, and the question it asks; one with its fields."""
    parser = argparse.ArgumentParser(prog="concise-rl methods", description=methods.__doc__)
    parser.add_argument("name", nargs="?", help="show the components and fields of this one")
    parser.add_argument("--markdown", action="store_true", help="the table of docs/methods/README.md")
    parser.add_argument("--results", type=Path, help="docs/results/methods.json: adds what was measured")
    options = parser.parse_args(arguments)

    import json

    from concise_rl.methods import method_names, selector_names
    from concise_rl.reporting import methods_table as table

    if options.name in selector_names():
        table.show_selector(table.selector_entry(options.name))
        return
    if options.name:
        table.show_method(table.method_entry(options.name))
        return
    entries: list[table.Entry] = [
        *map(table.method_entry, method_names()),
        *map(table.selector_entry, selector_names()),
    ]
    if not options.markdown:
        table.show_methods(entries)
        return
    results = json.loads(options.results.read_text()) if options.results else []
    print(table.methods_markdown(entries, results), end="")


def components(arguments: Sequence[str]) -> None:
    """What recipes are made of: shapers, advantages, filters, curricula, samplers, cuts, edits, verifiers; fields."""
    parser = argparse.ArgumentParser(prog="concise-rl components", description=components.__doc__)
    parser.add_argument("name", nargs="?", help="a kind (shaper, edit, ...), or a component to show in full")
    options = parser.parse_args(arguments)

    from concise_rl.reporting.components_table import show_components

    show_components(options.name)


def init(arguments: Sequence[str]) -> None:
    """Write a method of your own: a plug-in, its test and its recipe, which work at once."""
    parser = argparse.ArgumentParser(prog="concise-rl init", description=init.__doc__)
    parser.add_argument("path", type=Path, help="a folder to make; its name is the method's")
    options = parser.parse_args(arguments)

    from concise_rl.commands.scaffold import write_plug_in

    for file in write_plug_in(options.path):
        print(f"written: {file}")
    name = options.path.name
    print(f"test it:  pytest {options.path}")
    print(f"train it: concise-rl train --config-dir {options.path}/recipes method={name}")


def completion(arguments: Sequence[str]) -> None:
    """Print a script that completes commands, recipes and fields: bash, zsh or fish."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(COMPLETION, end="")
        return

    from concise_rl.commands.completion import main as complete

    print(complete(arguments, COMMANDS), end="")


def compare(arguments: Sequence[str]) -> None:
    """Runs and evaluations against each other: one page that needs no network, with Markdown, CSV and SVG beside it."""
    parser = argparse.ArgumentParser(prog="concise-rl compare", description=compare.__doc__)
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="RUN_OR_EVAL",
        help="run folder, evaluation folder, or its .jsonl; NAME=RUN,RUN,... is one entry of several, such as seeds",
    )
    parser.add_argument("--out", default="compare.html", help="the page (default compare.html)")
    parser.add_argument(
        "--baseline", metavar="NAME", help="what differences are to (default: before training, or first)"
    )
    parser.add_argument(
        "--price",
        nargs="+",
        type=float,
        metavar="LAMBDA",
        help="of a token in units of one right answer: where regret is told (default: three)",
    )
    options = parser.parse_args(arguments)

    from concise_rl.reporting.compare import compare as compare_paths

    written = compare_paths(options.paths, options.out, options.baseline, options.price)
    for name, benchmark, sentence in written.sentences:
        print(printable(f"{name} on {benchmark}: {sentence}"))
    for verdict in written.verdicts.values():
        print(printable(verdict))
    print(
        f"against {written.baseline}; page: {written.page}   table: {written.table}   Markdown: {written.markdown}   "
        f"figures: {written.figures[0].parent}"
    )


def fit(arguments: Sequence[str]) -> None:
    """Fit ScaleRL's sigmoid to each run, predict its end from its first half, and fit a power law to several."""
    parser = argparse.ArgumentParser(prog="concise-rl fit", description=fit.__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder with metrics.jsonl")
    parser.add_argument("--metric", default="accuracy", help="key of metrics.jsonl (default accuracy)")
    parser.add_argument("--against", default="step", help="step (default), num_tokens or seconds")
    parser.add_argument("--out", default="fit", help="folder for fit.json and the figures (default fit)")
    options = parser.parse_args(arguments)

    from concise_rl.reporting.fit_report import fit_runs, show_fits, write_fits

    fits = fit_runs(options.runs, options.metric, options.against)
    show_fits(fits, options.metric, options.against)
    print("written:", *write_fits(fits, options.out, options.metric, options.against))


def diagnose(arguments: Sequence[str]) -> None:
    """What is wrong with a run, if anything, and why: length that collapses, nothing that changes, denominators."""
    parser = argparse.ArgumentParser(prog="concise-rl diagnose", description=diagnose.__doc__)
    parser.add_argument("run", type=Path, help="a run folder; its rollouts.jsonl tells the causes")
    options = parser.parse_args(arguments)

    from concise_rl.reporting.diagnose import Evidence
    from concise_rl.reporting.diagnose import diagnose as findings_of
    from concise_rl.reporting.diagnose.show import show_diagnosis

    evidence = Evidence.read(options.run)
    show_diagnosis(evidence, findings_of(evidence))


def plan(arguments: Sequence[str]) -> None:
    if {"-h", "--help"} & set(arguments):
        print(PLAN, end="")
        return

    from concise_rl import planning

    request = planning.PlanRequest.of(arguments)
    print(planning.describe(request.plan(), request.title, request.price), end="")


def warmup(arguments: Sequence[str]) -> None:
    """Make the reasoner of an embedded task by supervised training: five to ten minutes on one core."""
    parser = argparse.ArgumentParser(prog="concise-rl warmup", description=warmup.__doc__)
    parser.add_argument("task", nargs="?", default="task=chain_sum", metavar="task=NAME", help="default: chain_sum")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and tokenizer")
    parser.add_argument("--seed", type=int, default=0, help="another one makes another model of the kind (default 0)")
    options = parser.parse_args(arguments)

    import logging

    from concise_rl.testbeds.warmups import make

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    metrics = make(options.task.removeprefix("task="), options.out, options.seed)
    print(
        f"{options.out}: {metrics['accuracy']:.1%} right at {metrics['mean_tokens']:.1f} tokens, "
        f"{metrics['tokens_over_oracle']:.2f} times the shortest reasoning that shows every step"
    )


def predict(arguments: Sequence[str]) -> None:
    """Predict where a method settles on a test bed: a tabular policy on the bed's law, in seconds."""
    parser = argparse.ArgumentParser(prog="concise-rl predict", description=predict.__doc__)
    parser.add_argument("overrides", nargs="+", metavar="KEY=VALUE", help="method=kimi data=which_sum, and its fields")
    parser.add_argument("--steps", type=int, default=200, help="of 16 prompts x 8 completions (default 200)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    from concise_rl.commands import config
    from concise_rl.evaluation.predict import BEDS
    from concise_rl.evaluation.predict import predict as predict_points
    from concise_rl.testbeds.beds import BEDS as KNOWN
    from concise_rl.testbeds.frontier import PRICES

    bed = next((item.partition("=")[2] for item in options.overrides if item.startswith("data=")), "running_total")
    own = [f"data={bed}", f"model={KNOWN[bed].model}"] if bed in BEDS else []
    composed = config.compose([*own, *(item for item in options.overrides if not item.startswith("data="))])
    limit = int(composed.trainer.max_completion_length)
    points = predict_points(config.method_of(composed), bed, limit, options.steps, seed=options.seed)
    for number, point in enumerate(points):
        step = number * max(1, options.steps // 10)
        print(f"step {step:4d}: {point.accuracy:6.1%} right at {point.tokens:5.1f} tokens")
    frontier = KNOWN[bed].frontier([prompt.messages[-1]["content"] for prompt in BEDS[bed]().test])
    regrets = (f"{100 * frontier.regret(points[-1].accuracy, points[-1].tokens, price):.1f}" for price in PRICES)
    print(f"regret at {', '.join(map(str, PRICES))} a token: {', '.join(regrets)} points")


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "train": train,
    "eval": evaluate,
    "sample": sample,
    "select": select,
    "tune": tune,
    "merge": merge,
    "pipeline": pipeline,
    "replay": replay,
    "methods": methods,
    "components": components,
    "init": init,
    "compare": compare,
    "fit": fit,
    "diagnose": diagnose,
    "plan": plan,
    "predict": predict,
    "warmup": warmup,
    "completion": completion,
}

if __name__ == "__main__":
    main()
