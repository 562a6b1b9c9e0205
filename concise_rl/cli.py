"""`concise-rl` and its commands. Light at the top, so that `--help` answers at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from concise_rl.errors import printable, show_printable_tracebacks

HELP = """\
concise-rl: train reasoning models to think no longer than they need

usage: concise-rl COMMAND [OPTIONS]

commands
  train     train a model; Hydra overrides choose method, model, data   concise-rl train method=hapo seed=1
  eval      how well a checkpoint answers, and at how many tokens       concise-rl eval model.path=runs/demo/model
  replay    what other methods make of a run's stored rollouts          concise-rl replay runs/demo hapo kimi
  methods   the methods that are built in                               concise-rl methods
  compare   runs and evaluations in one page, Markdown, CSV and figures concise-rl compare runs/grpo runs/hapo
  fit       a run's curve: ceiling, speed, and what its half foretold   concise-rl fit runs/demo
  plan      memory, time and cost of a run before it runs (estimate)    concise-rl plan model=qwen3_1.7b hardware=h100x8
  predict   where a method settles on a test bed, without a model       concise-rl predict method=kimi data=which_sum
  warmup    make the reasoner of an embedded task                       concise-rl warmup task=which_sum --out DIR

train and eval take Hydra overrides:
  method=pear model=tiny data=chain_sum run=cpu peft=lora tracking=wandb      choose recipes (train)
  model=tiny benchmark=gsm8k mode=forced mode.budget=512 backend=http         choose recipes (eval)
  benchmark.path=test.jsonl  benchmarks='[math500,aime24]'                    a local copy; several benchmarks (eval)
  shaper.hapo.weight=0.5  advantage.canon.mu=0.3  trainer.learning_rate=1e-5  set fields (trainer.* is trl.GRPOConfig)
  method.shapers='[hapo,overlong]'  method.shapers='[my_shapers.py:Budget]'   compose shapers, or use your own
  -m method=grpo,hapo seed=0,1,2                                              a sweep
  --cfg job                                                                   show the configuration, run nothing

`accelerate launch -m concise_rl.train ...` is `concise-rl train ...` on several processes.
CONCISE_RL_TRACEBACK=1 shows where an error arose.
"""


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


def replay(arguments: Sequence[str]) -> None:
    """Re-shape a run's stored rollouts with any method, without a model."""
    parser = argparse.ArgumentParser(prog="concise-rl replay", description=replay.__doc__)
    parser.add_argument("run", type=Path, help="a run folder with rollouts.jsonl")
    parser.add_argument("methods", nargs="*", help="method recipes (none: all that the rows allow), and overrides")
    parser.add_argument("--csv", type=Path, help="also write every row's reward and credit here")
    options = parser.parse_args(arguments)

    from concise_rl.commands import config
    from concise_rl.evaluation.replay import can_serve
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
    show_replay(result)
    if options.csv:
        write_rows(result, options.csv)


def methods(arguments: Sequence[str]) -> None:
    """The built-in methods: what each is made of, and the question its recipe asks; one of them with its fields."""
    parser = argparse.ArgumentParser(prog="concise-rl methods", description=methods.__doc__)
    parser.add_argument("name", nargs="?", help="show this method's components and fields")
    parser.add_argument("--markdown", action="store_true", help="the table of docs/methods/README.md")
    parser.add_argument("--results", type=Path, help="docs/results/methods.json: adds what was measured")
    options = parser.parse_args(arguments)

    import json

    from concise_rl.methods import method_names
    from concise_rl.reporting.methods_table import method_entry, methods_markdown, show_method, show_methods

    if options.name:
        show_method(method_entry(options.name))
        return
    entries = [method_entry(name) for name in method_names()]
    if not options.markdown:
        show_methods(entries)
        return
    results = json.loads(options.results.read_text()) if options.results else []
    print(methods_markdown(entries, results), end="")


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
    print(
        f"against {written.baseline}; page: {written.page}   table: {written.table}   Markdown: {written.markdown}   "
        f"figures: {written.figures[0].parent}"
    )


def fit(arguments: Sequence[str]) -> None:
    """Fit ScaleRL's sigmoid to each run, foretell its end from its first half, and a power law to several."""
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


PLAN = """\
concise-rl plan: memory of each rank by part, seconds of a step, hours, cost, and the first thing that does not fit

usage: concise-rl plan [KEY=VALUE ...]

  hardware=cpu2|h100x1|h100x8          default: what run= is made for, else cpu2
  layout=ddp|zero2|zero3|zero3_offload|fsdp2      default: ddp on one rank, zero2 on several
  prompt_tokens=256 completion_tokens=2000        of a prompt, and of a completion on average (default: half its limit)
  prompts_per_step=64 group_size=8 steps=500      default: what the recipes say
  price=3.0                                       dollars an hour of the whole machine

Every other key is an override of `concise-rl train`: model=, method=, peft=lora, trainer.max_completion_length=8192.
"""


def plan(arguments: Sequence[str]) -> None:
    if {"-h", "--help"} & set(arguments):
        print(PLAN, end="")
        return

    from concise_rl import planning

    request = planning.PlanRequest.of(arguments)
    print(planning.describe(request.plan(), request.title, request.price), end="")


def warmup(arguments: Sequence[str]) -> None:
    """Make the reasoner of an embedded task by supervision: five to ten minutes on one core."""
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
    """Foretell where a method settles on a test bed: a tabular policy on the bed's law, in seconds."""
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
    "replay": replay,
    "methods": methods,
    "compare": compare,
    "fit": fit,
    "plan": plan,
    "predict": predict,
    "warmup": warmup,
}

if __name__ == "__main__":
    main()
