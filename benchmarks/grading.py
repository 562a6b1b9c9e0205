"""What grading costs, and whether it is right.

    python benchmarks/grading.py --data FOLDER                        every gold against itself; exceptions one by one
    python benchmarks/grading.py --data FOLDER --answers 10000        processor and wall seconds, hostile ones included
    python benchmarks/grading.py --gsm8k-labels example_model_solutions.jsonl         agreement with labels of others
    python benchmarks/grading.py --math-labels report.html [--plain]     the same for MATH; beside math-verify alone
    python benchmarks/grading.py --distinct math500/test.jsonl       golds that differ and are taken for the same
    python benchmarks/grading.py --data FOLDER --others 200           each gold as the answer to so many other problems

FOLDER holds gsm8k/test.jsonl, math500/test.jsonl and so on. The labelled solutions to GSM8K are those in the repository
openai/grade-school-math on GitHub; labelled answers to MATH are report.html in bwu1234/math500-eval-prm, and
outs/MathCoder-L-7b/MATH/MATH_test_result-20230917-2026-correct.jsonl in mathllm/MathCoder.
"""

from __future__ import annotations

import argparse
import html
import json
import random
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import combinations, cycle, islice
from pathlib import Path

from concise_rl.commands import config
from concise_rl.commands.evaluate import Task, planned
from concise_rl.data import Prompt
from concise_rl.verifiers import FinalNumber, MathAnswer
from concise_rl.verifiers.equality import parse
from concise_rl.verifiers.statement import read

MAWPS = ["benchmark.question_column=input", "benchmark.answer_column=target"]
FILES = {
    name: f"{name}/test.jsonl"
    for name in ("gsm8k", "math500", "aime24", "aime25", "amc23", "minerva_math", "olympiadbench", "svamp")
} | {f"mawps {part}": f"mawps/{part}.jsonl" for part in ("addsub", "multiarith", "singleeq", "singleop")}

HOSTILE_SHARE = 500
"""One answer in so many is hostile."""

HOSTILE = (
    r"\boxed{9^{9^{9^9}}}",
    r"\boxed{(10^{9})!}",
    r"\boxed{\sum_{k=1}^{10^{12}} \frac{1}{k^2 + \sin k}}",
    r"\boxed{" + "(" * 1500 + "1" + ")" * 1500 + "}",
    r"\boxed{" + r"\frac{1}{1+" * 120 + "x" + "}" * 120 + "}",
    r"\boxed{" + r"\sqrt{2+" * 150 + "x" + "}" * 150 + "}",
    r"\boxed{" * 100_000,
    r"\boxed{" + "7" * 4000 + "}",
    r"\boxed{" + "1+" * 2000 + "1}",
    r"\boxed{" + "x" * 10**6 + "}",
    "1,234 " * 200_000,
    "$" + "{" * 4000,
)
REASONING = "<think>" + "Let $x = 3 + 4$, so $x^2 = 49$; check: $7 \\cdot 7 = 49$. " * 60 + "</think>"


def load(data: Path) -> list[tuple[Task, list[Prompt]]]:
    """The benchmarks that the folder holds, read through their recipes."""
    loaded = []
    for name, file in FILES.items():
        if not (data / file).exists():
            print(f"{name}: no {data / file}, left out")
            continue
        recipe = name.partition(" ")[0]
        overrides = [f"benchmark={recipe}", f"benchmark.path={data / file}", *(MAWPS if recipe == "mawps" else [])]
        (task,) = planned(config.compose(overrides, "eval"), name, overrides)
        loaded.append((task, list(task.source.load("test"))))
    return loaded


def check_golds(data: Path) -> None:
    """Each gold stated as an answer: the rows that do not verify, and those that only their text can."""
    for task, prompts in load(data):
        pairs = [(task.verifier.wrap_reference(p.reference), p.reference) for p in prompts]
        verdicts = task.verifier.verify_many(pairs, deadline_seconds=60)
        refused = [i for i, verdict in enumerate(verdicts) if not (verdict.correct and verdict.scorable)]
        print(f"{task.name}: {len(prompts) - len(refused)} of {len(prompts)} golds verify; not rows {refused}")
        if isinstance(task.verifier, MathAnswer):
            shown = [f"{i} `{task.verifier.wrap_reference(prompts[i].reference)}`" for i in unread(task, prompts)]
            print(f"  read as text alone: {', '.join(shown) or 'none'}")


def unread(task: Task, prompts: list[Prompt]) -> list[int]:
    """Rows whose gold math-verify cannot read as mathematics, so that only the same text is right."""
    import sympy

    rows = []
    for i, prompt in enumerate(prompts):
        sides = [side for part in read(prompt.reference).parts if not part.dots for side in part.sides]
        if not all(isinstance(found, sympy.Basic | sympy.MatrixBase) for side in sides for found in parse(side)[:1]):
            rows.append(i)
    return rows


def answers(task: Task, prompts: list[Prompt]) -> Iterator[tuple[str, str]]:
    """For ever: each problem's gold in a box after long reasoning, another's gold, the gold without a box."""
    for turn in cycle(range(3)):
        for i, prompt in enumerate(prompts):
            said = prompts[i - 1] if turn == 1 else prompt
            stated = task.verifier.wrap_reference(said.reference)
            if turn == 2:
                stated = f"The final answer is ${stated.removeprefix(chr(92) + 'boxed{').removesuffix('}')}$."
            yield f"{REASONING if turn == 0 else ''}Therefore {stated}", prompt.reference


def grade(data: Path, count: int) -> None:
    """Judge `count` answers, each benchmark's share by its size, and print what became of them."""
    loaded = load(data)
    total = sum(len(prompts) for _, prompts in loaded)
    outcomes: Counter[str] = Counter()
    print(f"{time.process_time():.1f} s of processor time to start and load")
    hostile = cycle(HOSTILE)
    started, graded = time.perf_counter(), 0
    for task, prompts in loaded:
        share = round(count * len(prompts) / total)
        pairs = list(islice(answers(task, prompts), share))
        for i in range(0, share, HOSTILE_SHARE):
            pairs[i] = (next(hostile), pairs[i][1])
        begun = time.perf_counter()
        verdicts = task.verifier.verify_many(pairs)
        print(f"{task.name}: {share} answers in {time.perf_counter() - begun:.1f} s")
        outcomes.update("unscorable: " + v.reason if not v.scorable else str(v.correct) for v in verdicts)
        graded += share
    print(f"{graded} answers in {time.perf_counter() - started:.1f} s of wall-clock time")
    print(", ".join(f"{number} {outcome}" for outcome, number in outcomes.most_common()))


def check_labels(path: Path) -> None:
    """Agreement with the published right and wrong labels of GSM8K solutions; each disagreement is printed."""
    verifier, total, differing = FinalNumber(), 0, 0
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        row = json.loads(line)
        for model, solution in row.items():
            if not isinstance(solution, dict):
                continue
            total += 1
            verdict = verifier(solution["solution"], row["ground_truth"])
            if verdict.correct != solution["is_correct"]:
                differing += 1
                print(f"line {number}, {model}: labelled {solution['is_correct']}, {solution['solution'][-60:]!r}")
    print(f"{total - differing} of {total} verdicts agree ({(total - differing) / total:.2%})")


def labelled_math(path: Path) -> Iterator[tuple[str, str, str, bool]]:
    """Name, completion, reference and label of others: a page of MATH-500, answers labelled right, or mixed cases."""
    if path.suffix == ".html":
        shown = r'<details class="q (ok|bad)">.*?#(\d+).*?got (.*?)\s*&middot; want (.*?)</span>'
        for label, number, *both in re.findall(shown, path.read_text(), re.DOTALL):
            answer, reference = (html.unescape(text).strip() for text in both)
            yield f"#{number}", f"\\boxed{{{answer}}}", reference, label == "ok"
        return
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        row = json.loads(line)
        if "ground_truth" in row:
            yield row["id"], f"\\boxed{{{row['completion']}}}", row["ground_truth"]["answer"], True
        elif row["verifier"] == "math_answer":
            yield f"line {number}", row["completion"], row["reference"], row["right"]


def check_math_labels(path: Path, plain: bool) -> None:
    """Agreement with published labels of answers to MATH; each disagreement is printed, rounded decimals last."""
    rows = list(labelled_math(path))
    verdicts = [verdict.correct for verdict in MathAnswer().verify_many([row[1:3] for row in rows])]
    agreement(rows, verdicts, "verdicts")
    if plain:
        others = [plain_verdict(completion, reference) for _, completion, reference, _ in rows]
        agreement(rows, others, "verdicts of plain math-verify")
        pairs = [(row, mine) for row, mine, other in zip(rows, verdicts, others, strict=True) if mine != other]
        for (name, completion, reference, label), mine in pairs:
            print(f"differ, {name}: here {mine}, labelled {label}, {completion[-60:]!r} for {reference!r}")
        right = sum(mine == row[3] for row, mine in pairs)
        print(f"{len(pairs)} of {len(rows)} verdicts differ; {right} of them are as labelled here, the others there")


def agreement(rows: list[tuple[str, str, str, bool]], verdicts: list[bool], what: str) -> None:
    """Print how many verdicts are as labelled, and those that are not."""
    differing = [row for row, verdict in zip(rows, verdicts, strict=True) if verdict != row[3]]
    for name, completion, reference, label in sorted(differing, key=lambda row: "." in row[1][-12:]):
        print(f"{name}: labelled {label}, {completion[-60:]!r} for {reference!r}")
    agree = len(rows) - len(differing)
    print(f"{agree} of {len(rows)} {what} agree ({agree / len(rows):.2%})")


def plain_verdict(completion: str, reference: str) -> bool:
    """What math-verify says by itself, with its own defaults."""
    import math_verify

    return bool(math_verify.verify(math_verify.parse(f"\\boxed{{{reference}}}"), math_verify.parse(completion)))


def check_distinct(path: Path) -> None:
    """Every two golds of a file, one as the answer to the other: those that are taken for the same."""
    golds = sorted({json.loads(line)["answer"] for line in path.read_text().splitlines()})
    verifier = MathAnswer()
    pairs = list(combinations(golds, 2))
    verdicts = verifier.verify_many([(verifier.wrap_reference(one), other) for one, other in pairs])
    same = [pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict.correct]
    undecided = sum(not verdict.scorable for verdict in verdicts)
    for one, other in same:
        print(f"{one!r} is taken for {other!r}")
    print(f"{len(same)} of {len(pairs)} pairs of {len(golds)} golds are taken for the same, {undecided} undecided")


def _final_text(reference: str) -> str:
    return "".join(reference.rpartition("####")[2].split())


def check_others(data: Path, count: int, seed: int) -> None:
    """Each gold as the answer to `count` other problems of its benchmark: the golds that are taken for another."""
    for task, prompts in load(data):
        draw, pairs = random.Random(f"{seed} {task.name}"), []
        for i, prompt in enumerate(prompts):
            others = draw.sample(range(len(prompts) - 1), min(count, len(prompts) - 1))
            for other in (prompts[j + (j >= i)] for j in others):
                pairs.append((prompt.reference, other.reference))
        different = [pair for pair in pairs if len({_final_text(reference) for reference in pair}) == 2]
        same_text, pairs = len(pairs) - len(different), different
        verdicts = task.verifier.verify_many([(task.verifier.wrap_reference(one), other) for one, other in pairs])
        taken = {tuple(sorted(pair)) for pair, verdict in zip(pairs, verdicts, strict=True) if verdict.correct}
        undecided = sum(not verdict.scorable for verdict in verdicts)
        print(f"{task.name}: {len(pairs)} pairs of golds of other texts, {len(taken)} taken for the same, "
              f"{undecided} undecided; {same_text} pairs have one text")  # fmt: skip
        for one, other in sorted(taken):
            print(f"  {one[-80:]!r} and {other[-80:]!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--answers", type=int)
    parser.add_argument("--gsm8k-labels", type=Path)
    parser.add_argument("--math-labels", type=Path)
    parser.add_argument("--distinct", type=Path)
    parser.add_argument(
        "--plain", action="store_true", help="also judge the answers of --math-labels by math-verify alone"
    )
    parser.add_argument("--others", type=int)
    parser.add_argument("--seed", type=int, default=0, help="draws the problems of --others")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.gsm8k_labels:
        check_labels(options.gsm8k_labels)
    if options.math_labels:
        check_math_labels(options.math_labels, options.plain)
    if options.distinct:
        check_distinct(options.distinct)
    if options.data and options.others:
        check_others(options.data, options.others, options.seed)
    elif options.data and not options.answers:
        check_golds(options.data)
    elif options.data and options.in_process:
        grade(options.data, options.answers)
    elif options.data:
        # In a process of its own: its processor time, with that of the workers that it waited for, is then known here.
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--in-process"], check=True)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(f"{used.ru_utime + used.ru_stime:.1f} s of processor time, start and imports included")


if __name__ == "__main__":
    main()
