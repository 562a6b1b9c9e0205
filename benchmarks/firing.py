"""The pipeline that completions go through, with every verifier and component that sees them, and what came of it.

`benchmarks/fuzz.py` fires at it.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.hostile import CLICK, GOLD, NAMES, Hostile
from benchmarks.leaks import page_faults, terminal
from concise_rl.assets import TINY
from concise_rl.batch import RolloutBatch
from concise_rl.engine.collect import collect
from concise_rl.evaluation import Evaluation, EvaluationRow
from concise_rl.evaluation.judge import repetition
from concise_rl.evaluation.yap import yap_summary
from concise_rl.methods.contracts import check_keep, check_kept_tokens, check_value
from concise_rl.methods.metrics import step_metrics
from concise_rl.methods.registry import component, components
from concise_rl.methods.statistics import zero_where_out
from concise_rl.reporting.compare import compare
from concise_rl.reporting.html import write_report
from concise_rl.reporting.run_log import RunLog
from concise_rl.reporting.summary import Answer, CompletionPair
from concise_rl.rollouts import LocalRollout, StepRecord, TokenVocabulary
from concise_rl.verifiers import VERIFIERS, Verdict, verify_many

GROUP_SIZE = 8

DEADLINE_SECONDS = 2.0
GRACE_SECONDS = 2.0
"""A verdict may come this much after its deadline: the worker is killed, and this process may have to wait its turn."""

TOKEN_LIMIT = 2048
"""Sampling stops here, so no row of a batch is longer; verifiers and pages get the whole text."""


def links(kind: str) -> dict[str, Any]:
    """Every component of a kind by its slot, as it is by default, and those with other curves or variants besides."""
    more = {"shaper": SHAPERS, "advantage": ADVANTAGES}.get(kind, [])
    found = {f"{kind}.{name}": cls() for name, cls in components(kind).items()}
    return found | {f"{kind}.{name} {fields}": component(kind, name)(**fields) for name, fields in more}


SHAPERS: list[tuple[str, dict[str, Any]]] = [
    ("hapo", {"kind": "linear", "history": "mean"}),
    ("hapo", {"variant": "code"}),
    ("kimi_length", {"weight": 0.7, "warmup_steps": 2}),
    ("cosine", {"repetition_weight": 0.5}),
]
ADVANTAGES: list[tuple[str, dict[str, Any]]] = [
    ("group_relative", {"scale": "batch"}),
    ("canon", {"metric": "entropy", "schedule": "first_intra_later_inter"}),
    ("difficulty_weighted", {"kind": "linear", "column": "difficulty", "minimum": 0.0, "maximum": 6.0}),
]

assert GOLD.keys() == VERIFIERS.keys()


@dataclass
class Slowest:
    """The longest time that one text took, and the text."""

    seconds: float = 0.0
    text: str = ""

    def see(self, seconds: float, text: str) -> None:
        if seconds > self.seconds:
            self.seconds, self.text = seconds, text


@dataclass
class Tally:
    """What came of it.

    Attributes:
        completions: texts thrown.
        outcomes: verifier to verdicts by kind: right, wrong, unscorable, and of these killed and died.
        slowest: stage to its slowest text.
        late: verdicts that came `GRACE_SECONDS` after their deadline.
        failures: tracebacks, and numbers that were not finite, each with where it arose.
        numbers: rewards, credits and metrics that were looked at.
        pages: HTML pages that were parsed.
    """

    completions: int = 0
    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in VERIFIERS})
    slowest: dict[str, Slowest] = field(default_factory=dict)
    late: int = 0
    failures: list[str] = field(default_factory=list)
    numbers: int = 0
    pages: int = 0

    def finite(self, where: str, numbers: Any) -> None:
        """Count numbers, None left out, and note those that are not finite."""
        flat = [float(n) for n in numbers if n is not None]
        self.numbers += len(flat)
        if not all(map(math.isfinite, flat)):
            self.failures.append(f"{where}: not finite")

    def timed(self, stage: str, text: str, started: float) -> float:
        seconds = time.perf_counter() - started
        self.slowest.setdefault(stage, Slowest()).see(seconds, text)
        return seconds


class Range:
    """The pipeline under fire; `step` takes the completions of one batch, `pages` those of one chunk."""

    def __init__(self, tally: Tally, *, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        from transformers import AutoTokenizer

        self.tally = tally
        self.deadline_seconds = deadline_seconds
        self.tokenizer = AutoTokenizer.from_pretrained(TINY)
        self.vocabulary = TokenVocabulary(
            frozenset({self.tokenizer.eos_token_id}), self.tokenizer.convert_tokens_to_ids("</think>")
        )
        self.verifiers = {name: kind() for name, kind in VERIFIERS.items()}
        self.shapers, self.advantages = links("shaper"), links("advantage")
        self.filters, self.cuts, self.curricula = links("filter"), links("cut"), links("curriculum")
        every = self.shapers | self.advantages | self.filters | self.cuts | self.curricula
        self.needs = frozenset().union(*(made.needs for made in every.values()))
        # Once a process, ROUGE brings half a scientific library: no text's time.
        verify_many(self.verifiers["json_action"], [(CLICK, GOLD["json_action"][0])])
        self.states = {name: {slot: made.init() for slot, made in every.items()} for name in VERIFIERS}

    def step(self, number: int, texts: Sequence[str], source: Hostile, log: RunLog) -> list[tuple[str, Verdict, list]]:
        """One batch: tokens, verdicts of every verifier, shaping, credit, and its line in rollouts.jsonl.

        Returns:
            (text, one of its verdicts, token ids) of each completion, for an evaluation.
        """
        tokens = [self.tokens(text, source.draw) for text in texts]
        ids = [source.name() for _ in range(len(texts) // GROUP_SIZE)]
        verdicts: dict[str, list[Verdict]] = {}
        for name in VERIFIERS:
            golds = [source.name() if source.draw.random() < 0.1 else source.draw.choice(GOLD[name]) for _ in ids]
            verdicts[name] = self.judge(name, [(text, golds[n // GROUP_SIZE]) for n, text in enumerate(texts)])
        chosen = list(VERIFIERS)[number % len(VERIFIERS)]
        log.on_rollouts(self.shape(chosen, number, texts, tokens, verdicts[chosen], ids, source.draw))
        self.tally.completions += len(texts)
        return list(zip(texts, verdicts[chosen], tokens, strict=True))

    def tokens(self, text: str, draw: random.Random) -> list[int]:
        """The text's ids as a policy would have sampled them: cut at the limit or ended by EOS, some ids at random."""
        started = time.perf_counter()
        readable = text.encode(errors="replace").decode()  # the hub's tokenizers refuse halves of surrogate pairs
        ids = self.tokenizer(readable, add_special_tokens=False)["input_ids"][:TOKEN_LIMIT]
        if draw.random() < 0.1:
            ids = draw.choices(range(len(self.tokenizer)), k=draw.randrange(0, 200))
        if len(ids) < TOKEN_LIMIT and draw.random() < 0.8:
            ids = [*ids, self.tokenizer.eos_token_id]
        self.tokenizer.decode(ids)
        self.tally.timed("tokenizer", text, started)
        return ids

    def judge(self, name: str, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """Each pair by itself, timed; what a killed worker leaves is started before the next one's time runs."""
        verifier, tally = self.verifiers[name], self.tally
        once = {"deadline_seconds": self.deadline_seconds, "workers": 1}
        verify_many(verifier, [("7", GOLD[name][0])], **once)
        verdicts = []
        for pair in pairs:
            started = time.perf_counter()
            (verdict,) = verify_many(verifier, [pair], **once)
            tally.late += tally.timed(name, pair[0], started) > self.deadline_seconds + GRACE_SECONDS
            tally.finite(name, [verdict.reward, *verdict.parts.values()])
            kind = "right" if verdict.correct else "wrong" if verdict.scorable else "unscorable"
            tally.outcomes[name][kind] += 1
            if "verifier exceeded" in verdict.reason or "worker died" in verdict.reason:
                tally.outcomes[name]["killed" if "exceeded" in verdict.reason else "died"] += 1
                verify_many(verifier, [("7", GOLD[name][0])], **once)
            elif verdict.reason.startswith("verifier raised"):
                tally.failures.append(f"{name}: {verdict.reason}: {pair[0][:200]!a} for {pair[1][:80]!a}")
            verdicts.append(verdict)
        return verdicts

    def shape(
        self, name: str, number: int, texts: Sequence[str], tokens: Sequence[list[int]], verdicts: Sequence[Verdict],
        ids: Sequence[str], draw: random.Random,
    ) -> StepRecord:  # fmt: skip
        """The verdicts as a batch, through every shaper and every advantage, and before every other component."""
        noise = np.random.default_rng(draw.randrange(2**32))
        local = [
            LocalRollout(
                prompt_key=ids[n // GROUP_SIZE],
                prompt=ids[n // GROUP_SIZE],
                token_ids=row,
                completion=text,
                verdict=verdict,
                columns={need.removeprefix("columns."): 6.0 * (n // GROUP_SIZE) / len(ids) for need in self.needs},
                limit=TOKEN_LIMIT,
                parts={need.removeprefix("parts."): float(draw.random() < 0.5) for need in self.needs},
                entropies=noise.exponential(0.3, len(row)).astype(np.float32),
                logprobs=-noise.exponential(0.3, len(row)).astype(np.float32),
            )
            for n, (text, row, verdict) in enumerate(zip(texts, tokens, verdicts, strict=True))
        ]
        collected = collect(
            local, group_size=GROUP_SIZE, step=number, vocabulary=self.vocabulary, needs=self.needs, repetition_ngram=10
        )
        batch, states = collected.batch, self.states[name]
        for shaper_name, shaper in self.shapers.items():
            out, states[shaper_name] = shaper(batch, batch.task_reward, states[shaper_name])
            reward = check_value(shaper, batch, out)
            self.tally.finite(shaper_name, out.metrics.values())
            for advantage_name, advantage in self.advantages.items():
                where = f"{shaper_name}, {advantage_name}"
                out, states[advantage_name] = advantage(batch, reward, states[advantage_name])
                credit = zero_where_out(batch, check_value(advantage, batch, out))
                self.tally.finite(where, [*credit.flatten().tolist(), *out.metrics.values()])
        self.choose(batch, states)
        metrics = step_metrics(batch, reward, credit)
        self.tally.finite("step_metrics", metrics.values())
        return StepRecord(batch, reward, credit, collected.prompts, collected.completions, metrics, collected.finishes)

    def choose(self, batch: RolloutBatch, states: dict[str, Any]) -> None:
        """What filters leave out, cuts keep, and curricula remember of the batch."""
        for slot, judge in self.filters.items():
            keep, states[slot] = judge(batch, states[slot])
            check_keep(judge, batch, keep)
        for cut in self.cuts.values():
            check_kept_tokens(cut, batch, cut(batch))
        for slot, curriculum in self.curricula.items():
            states[slot] = curriculum.observe(batch, states[slot])

    def pages(self, folder: Path, judged: Sequence[tuple[str, Verdict, list]], source: Hostile) -> None:
        """Two evaluations of the same problems, stored, read, summarised, compared, reported, and shown."""
        half = len(judged) // 2
        names = [f"a{number} {file_name(source.name())}" for number in range(2)]
        sides = [self.evaluation(judged[:half], source.draw.random()), self.evaluation(judged[-half:], 0.5)]
        summaries = {}
        for name, side in zip(names, sides, strict=True):
            (folder / name).mkdir(parents=True)
            side.save(folder / name / "evaluation.jsonl")
            if Evaluation.load(folder / name / "evaluation.jsonl") != side:
                self.tally.failures.append("an evaluation does not come back as it was stored")
            summaries[name] = {**side.summary(), "yap": yap_summary(side.rows)}
            content = {"benchmark": NAMES[len(names[0]) % len(NAMES)], **summaries[name]}
            (folder / name / "summary.json").write_text(json.dumps(content, allow_nan=False))
            side.notices()
        started = time.perf_counter()
        made = compare([folder / name for name in names], folder / "compare.html")
        self.tally.timed("compare.html", f"{half} completions a side", started)
        before, after = (
            [Answer(row.completion, row.length, row.correct) for row in side.rows if row.sample == 0] for side in sides
        )
        pairs = [
            CompletionPair(row.prompt, row.reference, *answers)
            for row, *answers in zip((r for r in sides[0].rows if r.sample == 0), before, after, strict=True)
        ]
        started = time.perf_counter()
        write_report(
            folder / "report.html",
            title=names[0],
            columns=dict(zip(("before", "after"), summaries.values(), strict=True)),
            pairs=pairs,
            metrics=[{"step": 1, "accuracy": 0.5, "mean_tokens": 7.0, source.name(): 1.0}],
            config={source.name(): source.name()},
            facts={source.name(): source.name()},
        )
        self.tally.timed("report.html", f"{half} completions", started)
        for page in (made.page, folder / "report.html"):
            self.tally.failures += [f"{page.name}: {fault}" for fault in page_faults(page.read_text("utf-8"))]
            self.tally.pages += 1
        for text in (made.markdown.read_text("utf-8"), made.table.read_text("utf-8"), terminal(summaries, pairs)):
            if any(c in text for c in "\x00\x1b\x9b\x07"):
                self.tally.failures.append("a control character reached Markdown, CSV or the terminal")
        strangers = {path.parent for path in made.figures} - {folder / "compare-figures"}
        if strangers:
            self.tally.failures.append(f"figures outside their folder: {strangers}")

    def evaluation(self, judged: Sequence[tuple[str, Verdict, list]], level: float) -> Evaluation:
        rows = []
        for n, (text, verdict, ids) in enumerate(judged):
            problem, sample = divmod(n, GROUP_SIZE)
            name = NAMES[problem % len(NAMES)]
            end = self.vocabulary.think_end_id
            rows.append(
                EvaluationRow(
                    prompt_id=f"{problem} {name}",
                    sample=sample,
                    prompt=name,
                    reference=name,
                    completion=text,
                    length=len(ids),
                    think_length=ids.index(end) if end in ids else len(ids),
                    truncated=len(ids) == TOKEN_LIMIT,
                    verdict=verdict,
                    columns={"difficulty": NAMES[problem % 5] if level < 0.5 else problem % 5, "category": name},
                    repetition=repetition(ids),
                )
            )
        return Evaluation(rows, {"samples": GROUP_SIZE})


def file_name(text: str) -> str:
    """The text as far as a file system takes it for a name."""
    return text.replace("/", "").replace("\x00", "").encode(errors="replace")[:100].decode(errors="ignore")
