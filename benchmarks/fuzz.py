"""Hostile completions through everything that reads a completion: no exception, no hang over the deadline, no NaN.

    python benchmarks/fuzz.py                                         2,000 completions, a minute or two
    python benchmarks/fuzz.py --completions 100000 --markdown out.md  the campaign of docs/results/fuzz.md

Each completion goes through the embedded tokenizer and back, every registered verifier (one at a time, so that each
has a time of its own), the phase split, every shaper and advantage, rollouts.jsonl, and an evaluation; each few
thousand through report.html, the comparison's page with its Markdown, CSV and figures, and the terminal's tables. What
goes wrong is printed with the number that makes it again: everything is drawn from `--seed`. Exits with 1 if anything
did.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import torch

from concise_rl.advantages import ADVANTAGES, Canon, DifficultyWeighted, GroupRelative, LeaveOneOut, SignSafe
from concise_rl.advantages.base import check_credit
from concise_rl.assets import TINY
from concise_rl.evaluation import Evaluation, EvaluationRow
from concise_rl.evaluation.judge import repetition
from concise_rl.evaluation.yap import yap_summary
from concise_rl.reporting.compare import compare
from concise_rl.reporting.evaluations import detail_tables
from concise_rl.reporting.html import write_report
from concise_rl.reporting.run_log import RunLog, read_rollouts
from concise_rl.reporting.summary import Answer, CompletionPair, pairs_view, pick_pairs, summary_table
from concise_rl.rollout import LocalRollout, StepRecord, TokenVocabulary, collect, step_metrics
from concise_rl.shapers import SHAPERS, Cosine, Dars, Hapo, KimiLength, Overlong, Pear, Plain
from concise_rl.shapers.base import check_reward
from concise_rl.verifiers import VERIFIERS, Verdict, verify_many

GROUP_SIZE = 8
PROMPTS = 8
CHUNK_STEPS = 64
"""Steps whose completions one pair of evaluations and one page of each kind take."""

DEADLINE_SECONDS = 2.0
GRACE_SECONDS = 2.0
"""A verdict may come this much after its deadline: the worker is killed, and this process may have to wait its turn."""

TOKEN_LIMIT = 2048
"""Sampling stops here, so no row of a batch is longer; verifiers and pages get the whole text."""

SIGNALS = frozenset({"think_entropy", "answer_entropy", "mean_entropy", "entropies", "logprobs", "columns.difficulty"})

# --- what is thrown ---------------------------------------------------------------------------------------------------

CORPUS = (
    "",
    " ",
    "\x00",
    "\x00\x01\x1b[2J\x1b]0;title\x07\x9b31m\r\x08\x7f",
    "\ud800",
    "7\udfff\ud83d",
    "\ufffe\uffff\U0010ffff",
    "\u202e7\u202c \u2066\u2067\u2069 \u200f\u200e\ufeff",
    "e" + "\u0301" * 400,
    "\u0e01\u0e33" * 50 + "\u1160" * 50,
    "👩\u200d👩\u200d👧\u200d👦" * 20 + "🏴\U000e0067\U000e0062\U000e007f",
    "\u2028\u2029\u0085\v\f",
    "７\u0667\u0be7½²⅒Ⅶ一",
    "İıſßŒﬁ" * 20,
    "</think>",
    "</think></think>7",
    "<think><think>7</think></think>",
    "<think>7",
    "7<think>",
    "< think >7</ think >",
    "<|im_end|><eos></s><pad><unk>",
    "{" * 500,
    "}" * 500,
    "{}" * 500,
    "\\boxed",
    "\\boxed{",
    "\\boxed{}",
    "\\boxed{" * 200 + "7" + "}" * 200,
    "\\boxed{7" + "{" * 999,
    "\\boxed{\\}}",
    "\\boxed{\\boxed{\\boxed{7",
    "$" * 999,
    "$$7$$ $7$ \\(7\\) \\[7\\] \\[",
    "\\" * 999,
    "\\frac{1}{0} \\boxed{\\frac{0}{0}}",
    "\\boxed{\\frac{1}{\\frac{1}{\\frac{1}{0}}}}",
    "\\boxed{\\infty - \\infty}",
    "\\boxed{\\sqrt{-1}}\\boxed{i^i}\\boxed{\\log 0}",
    "\\boxed{\\input{/etc/passwd}}\\write18{id}\\immediate\\openout\\csname x\\endcsname",
    "\\def\\a{\\a\\a}\\a",
    "\\boxed{" + "\\frac{1}{1+" * 6 + "x" + "}" * 6 + "}",
    "\\boxed{\\begin{pmatrix}" + "1&2\\\\" * 9 + "\\end{pmatrix}}",
    "\\boxed{" + ",".join(map(str, range(40))) + "}",
    "\\boxed{" + "1+" * 40 + "1}",
    "\\boxed{__import__('os').system('touch /tmp/owned')}",
    "answer: __import__('os').popen('id').read()",
    "The final answer is (1).__class__.__bases__[0].__subclasses__(). I hope it is correct.",
    "answer: 1+1*(2)**3-(4)/5^6",
    "answer: 7(7)(7)",
    "\\boxed{lambda: exec('1')}",
    "\\boxed{\\operatorname{eval}(1)} \\boxed{S.One.__class__}",
    "####",
    "#### -",
    "#### " + "9" * 5000,
    "#### 1e999",
    "#### 1e-999 / 0",
    "9" * 1200 + "/" + "9" * 1200,
    "1/0",
    "-0",
    "nan inf -inf NaN Infinity",
    "0x7 0b1 1_000 1,23,45 1.2.3.4 ٧",
    "The answer is (A) (B) (C) (D) or is it Z?",
    "{" + '"a":{' * 900 + "}" * 901,
    "[" * 100_000,
    '{"rationale": "", "action": {"type": "click", "name": "' + "buy " * 2000 + '"}}',
    '{"rationale": 1, "action": []}',
    '{"rationale": "", "action": {"type": ["click"], "name": {"$ref": "#"}}}',
    '{"rationale": "", "action": {"type": "click", "name": "\\ud800"}}',
    '{"rationale": "", "action": {"type": "click", "type": "terminate"}}',
    '{"rationale": "", "n": ' + "1" * 5000 + "}",
    '{"rationale": "", "n": 1e999, "m": NaN}',
    '{"__proto__": {"x": 1}, "constructor": {"prototype": {}}}',
    "<script>window.hacked = 1</script>",
    "</script><script>window.hacked = 1</script>",
    "</pre></td></table></main><img src=x onerror='window.hacked = 1'>",
    '"><svg/onload=window.hacked=1>',
    "<!--<script>",
    "]]><![CDATA[<a href=javascript:alert(1)>",
    "<style>@import url(//example.org)</style><base href=//example.org>",
    "<iframe srcdoc='&lt;script&gt;1&lt;/script&gt;'></iframe><meta http-equiv=refresh content=0>",
    "&lt;script&gt; &#60;script&#62; &amp;lt; &;",
    "[x](javascript:alert(1)) ![x](https://example.org/?q=) | a | b |\n| --- | --- |\n`<b>` **7** # 7",
    "[red]7[/red] [/] [link=https://example.org]7[/link] [bold",
    "%s%s%n {0.__class__} {} ${jndi:ldap://example.org} #{7*7} {{7*7}} <%= 7*7 %>",
    "'; DROP TABLE rollouts; --",
    "=cmd|' /C calc'!A1",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "+7\t-7\t=7",
    "../../../../etc/passwd",
    "..\\..\\windows\\system32\\config",
    "/etc/passwd\x00.png",
    "file:///etc/passwd http://169.254.169.254/latest/meta-data/",
    "CON NUL AUX com1.txt .. . ~ $HOME `id` $(id) ; rm -rf / #",
    "\r\n\r\nHTTP/1.1 200 OK\r\nSet-Cookie: a=b",
)

BOMBS = (
    r"\boxed{9^{9^{9^9}}}",
    r"\boxed{(10^{9})!}",
    r"\boxed{\sum_{k=1}^{10^{12}} \frac{1}{k^2 + \sin k}}",
    r"\boxed{" + r"\sqrt{2+" * 150 + "x" + "}" * 150 + "}",
    r"\boxed{" + r"\frac{1}{1+" * 40 + "x" + "}" * 40 + "}",
    r"\boxed{" + "1+" * 2000 + "1}",
    r"\boxed{\int_0^1 x^{x^{x^x}} dx}",
    r"\boxed{2^{2^{100}} \bmod 7}",
    r"\boxed{" + "(" * 1500 + "1" + ")" * 1500 + "}",
    "answer: " + "9**" * 12 + "9",
    "answer" + " " * 4000 + "=",
)
"""What keeps SymPy, or a regular expression that backtracks, busy until it is killed."""

UNITS = ("1", "1,", "1,234 ", "(", "{", "-$ ", "1/", "answer:", " ", "A ", r"\boxed{", "<think>", "</think>", '{"a":',
         "[", "####", "1e", "\\", "\u0301", "\x00", "<b>", "wait,", "\u202e", "😀", "$1$ and ", "x=")  # fmt: skip
"""Repeated up to a million characters."""

PIECES = (
    "<think>", "</think>", "</think>", "\\boxed{", "\\boxed{7}", "{", "}", "{", "}", "(", ")", "[", "]", "$", "$$",
    "\\(", "\\)", "\\frac{", "\\frac12", "\\sqrt{", "\\text{", "\\pm", "\\cdot", "\\times", "\\left(", "\\right)",
    "\\begin{cases}", "\\end{cases}", "\\infty", "\\pi", "\\in", "\\cup", "\\%", "%", "^", "^{", "_", "_{", "!", "=",
    "<", ">", "\\leq", "&", "\\\\", "\\,", "####", "answer:", "The final answer is", "I hope it is correct.", "Answer",
    "0", "7", "7", "57", "-7", "3.14", "1,000", "1e9", "9" * 40, ".5", "1/3", "x", "x=7", "y", "B", "(B)", "and", "or",
    '"', "'", "rationale", "action", "click", ":", ",", "null", "true", "\n", "\t", " ", " ", "\r\n", "\x00", "\x1b[",
    "\u202e", "\u0301", "é", "一", "😀", "\u200d", "\ufeff", "\ud800", "½", "²", "٣", "<script>", "</script>", "<!--",
    "-->", "onerror=", "&lt;", "|", "`", "*", "#", "~", "@", "wait", "let me check", "perhaps", "then 3+4=7;",
)  # fmt: skip

ANSWERS = (
    "<think>3+4=7;wait,3+4=7</think>7",
    "<think>Let $x = 3 + 4$.</think>The final answer is $\\boxed{7}$.",
    "<think>By symmetry.</think>\\boxed{\\frac{7}{3}}",
    "<think>a</think>{\"rationale\": \"r\", \"action\": {\"type\": \"click\", \"name\": \"buy now\"}}",
    "<think>b</think>Answer: (B)",
    "<think>c</think>#### 1,234.50",
    "<think>d</think>$\\{1, 2, 3\\}$ and $x \\in (0, \\pi]$",
)  # fmt: skip

GOLD = {
    "math_answer": (r"\frac{7}{3}", "7", r"\{1,2,3\}", "x=3"),
    "olympiad": ('{"final_answer": ["$69$,$84$"], "error": "1e-1"}', "7"),
    "final_number": ("7", "#### 1,234.5"),
    "choice": ("B",),
    "exact": ("7",),
    "includes": ("7",),
    "json_action": (
        '{"type": "click", "name": "buy now"}',
        '{"type": "type_and_submit", "name": "search box", "text": "red shoes"}',
    ),
}

CLICK = '{"rationale": "", "action": {"type": "click", "name": "buy"}}'

NAMES = tuple(text for text in CORPUS if text and len(text) < 120)
"""Corpus texts short enough to stand for ids, column values, run names and benchmarks."""


class Hostile:
    """A source of hostile texts: the corpus, mutants of answers, piles of pieces, noise, and repeats by the megabyte.

    Args:
        draw: whatever it makes is determined by this.
    """

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw

    def text(self) -> str:
        """One completion; two halves of a surrogate pair side by side are the character that they make."""
        return self._text().encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")

    def _text(self) -> str:
        draw = self.draw
        kind = draw.random()
        if kind < 0.0005:
            return draw.choice(BOMBS)
        if kind < 0.001:
            unit = draw.choice(UNITS)
            return unit * (draw.choice((10**4, 10**5, 10**6)) // len(unit)) + self._pile(3)
        if kind < 0.15:
            return draw.choice(CORPUS)
        if kind < 0.25:
            return draw.choice(CORPUS) + draw.choice(ANSWERS) + draw.choice(CORPUS)
        if kind < 0.5:
            return self._mutant(draw.choice(ANSWERS))
        if kind < 0.85:
            return self._pile(draw.randrange(1, 30))
        if kind < 0.93:
            return self._nested(draw.randrange(1, 60))
        return self._noise(draw.randrange(1, 80))

    def name(self) -> str:
        """An id, a column's value, or the like."""
        return self.draw.choice(NAMES)

    def _pile(self, count: int) -> str:
        return "".join(self.draw.choices(PIECES, k=count))

    def _mutant(self, text: str) -> str:
        for _ in range(self.draw.randrange(1, 6)):
            a, b = sorted(self.draw.choices(range(len(text) + 1), k=2))
            text = self.draw.choice(
                (text[:a] + text[b:], text[:b] + text[a:], text[:a] + self.draw.choice(PIECES) + text[a:],
                 text[:a] + text[a:b][::-1] + text[b:], text[:a] + text[a:b].upper() + text[b:])
            )  # fmt: skip
        return text

    def _nested(self, depth: int) -> str:
        opening, closing = self.draw.choice(
            (("{", "}"), ("\\boxed{", "}"), ("\\frac{1}{", "}"), ("<think>", "</think>"), ('{"action":', "}"),
             ("[", "]"), ("\\left(", "\\right)"), ("\\sqrt{", "}"), ("2^{", "}"), ("<div>", "</div>"), ("\\text{", "}"))
        )  # fmt: skip
        return opening * depth + self._pile(3) + closing * max(0, depth + self.draw.randrange(-2, 3))

    def _noise(self, count: int) -> str:
        planes = ((0x20, 0x7F), (0, 0x100), (0x300, 0x370), (0x2000, 0x2070), (0xD800, 0xE000), (0, 0x110000))
        return "".join(chr(self.draw.randrange(*self.draw.choice(planes))) for _ in range(count))


# --- what it is thrown at ---------------------------------------------------------------------------------------------


def shapers() -> dict[str, Any]:
    """Every shaper, those with curves or variants more than once."""
    return {
        "plain": Plain(),
        "hapo": Hapo(),
        "hapo linear mean": Hapo(kind="linear", history="mean"),
        "hapo code": Hapo(variant="code"),
        "pear": Pear(format_reward=0.1),
        "kimi_length": KimiLength(weight=0.7, warmup_steps=2),
        "cosine": Cosine(max_length=TOKEN_LIMIT, repetition_weight=0.5),
        "cosine code": Cosine(max_length=TOKEN_LIMIT, repetition_weight=0.5, variant="code"),
        "overlong": Overlong(max_length=TOKEN_LIMIT),
        "dars": Dars(),
    }


def advantages() -> dict[str, Any]:
    """Every advantage."""
    column = {"kind": "linear", "column": "difficulty", "minimum": 0.0, "maximum": 6.0}
    return {
        "group_relative": GroupRelative(),
        "group_relative batch": GroupRelative(scale="batch"),
        "leave_one_out": LeaveOneOut(),
        "canon length": Canon(mu=0.7),
        "canon entropy": Canon(metric="entropy", schedule="first_intra_later_inter"),
        "difficulty_weighted": DifficultyWeighted(),
        "difficulty_weighted column": DifficultyWeighted(**column),
        "sign_safe": SignSafe(),
    }


assert {type(shaper) for shaper in shapers().values()} == set(SHAPERS.values()), "a shaper is not under fire"
assert {type(advantage) for advantage in advantages().values()} == set(ADVANTAGES.values())
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
        self.shapers, self.advantages = shapers(), advantages()
        # Once a process, ROUGE brings half a scientific library: no text's time.
        verify_many(self.verifiers["json_action"], [(CLICK, GOLD["json_action"][0])])
        self.states = {name: {key: s.init() for key, s in self.shapers.items()} for name in VERIFIERS}

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
        """The verdicts as a batch, through every shaper and every advantage."""
        noise = np.random.default_rng(draw.randrange(2**32))
        local = [
            LocalRollout(
                prompt_id=ids[n // GROUP_SIZE],
                prompt=ids[n // GROUP_SIZE],
                token_ids=row,
                completion=text,
                verdict=verdict,
                columns={"difficulty": 6.0 * (n // GROUP_SIZE) / len(ids)},
                entropies=noise.exponential(0.3, len(row)).astype(np.float32),
                logprobs=-noise.exponential(0.3, len(row)).astype(np.float32),
            )
            for n, (text, row, verdict) in enumerate(zip(texts, tokens, verdicts, strict=True))
        ]
        batch, prompts, completions = collect(
            local, group_size=GROUP_SIZE, step=number, vocabulary=self.vocabulary, needs=SIGNALS, repetition_ngram=10
        )
        for shaper_name, shaper in self.shapers.items():
            shaped, self.states[name][shaper_name] = shaper(batch, batch.task_reward, self.states[name][shaper_name])
            check_reward(shaper, batch, shaped.reward)
            self.tally.finite(shaper_name, shaped.metrics.values())
            for advantage_name, advantage in self.advantages.items():
                credit = advantage(batch, shaped.reward)
                check_credit(advantage, batch, credit)
                self.tally.finite(f"{shaper_name}, {advantage_name}", credit.flatten().tolist())
                if bool(credit[~batch.scorable].any()):
                    self.tally.failures.append(f"{advantage_name}: credit for a row without a verdict")
        metrics = step_metrics(batch, shaped.reward, credit)
        self.tally.finite("step_metrics", metrics.values())
        return StepRecord(batch, shaped.reward, credit, prompts, completions, metrics)

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


# --- what may come out ------------------------------------------------------------------------------------------------

TAGS = {
    "html", "head", "meta", "title", "style", "body", "main", "header", "h1", "h2", "h3", "h4", "p", "b", "ul", "li",
    "section", "div", "table", "thead", "tbody", "tr", "th", "td", "span", "figure", "figcaption", "img", "article",
    "pre", "details", "summary", "script", "button", "i", "label", "select", "option", "input",
}  # fmt: skip
ATTRIBUTES = {
    "lang", "charset", "http-equiv", "content", "name", "class", "scope", "title", "alt", "src", "id", "type", "role",
    "aria-label", "aria-pressed", "aria-live", "data-run", "data-figure", "style", "value", "placeholder", "hidden",
}  # fmt: skip


class Page(HTMLParser):
    """A page as a browser takes it apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.scripts: list[tuple[str, str]] = []
        """Media type and content of each script element."""
        self._open = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._open = tag == "script"
        if self._open:
            self.scripts.append((given.get("type") or "", ""))
        if tag not in TAGS:
            self.faults.append(f"element {tag!a}")
        self.faults += [f"attribute {name!a} of {tag}" for name in given if name not in ATTRIBUTES]
        if not (given.get("src") or "data:").startswith("data:"):
            self.faults.append(f"{tag} loads {given['src']!a}")

    def handle_endtag(self, tag: str) -> None:
        self._open = False

    def handle_data(self, data: str) -> None:
        if self._open:
            kind, text = self.scripts[-1]
            self.scripts[-1] = kind, text + data

    def handle_comment(self, data: str) -> None:
        self.faults.append(f"comment {data[:40]!a}")


def page_faults(text: str) -> list[str]:
    """What a page holds that the project's own pages do not: elements, attributes, comments, scripts that run."""
    page = Page(text)
    running = [content for kind, content in page.scripts if not kind]
    faults = list(page.faults)
    if len(running) != 1 or "hacked" in running[0]:
        faults.append(f"{len(running)} scripts run")
    for kind, content in page.scripts:
        if kind == "application/json":
            json.loads(content)
    if any(c in text for c in "\x00\x1b\u202e"):
        faults.append("a control character")
    return faults


def terminal(summaries: Mapping[str, Any], pairs: Sequence[CompletionPair]) -> str:
    """The tables of a terminal, without the codes of its own colours."""
    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, width=120, color_system=None, force_terminal=False)
    console.print(summary_table({"before": next(iter(summaries.values()))}))
    for name, summary in summaries.items():
        for table in detail_tables(name[:2], summary):
            console.print(table)
    console.print(pairs_view(pick_pairs(pairs)))
    return out.getvalue()


def file_name(text: str) -> str:
    """The text as far as a file system takes it for a name."""
    return text.replace("/", "").replace("\x00", "").encode(errors="replace")[:100].decode(errors="ignore")


# --- the campaign -----------------------------------------------------------------------------------------------------


def campaign(
    completions: int, seed: int, first_step: int = 0, progress: Callable[[str], None] = lambda line: None
) -> Tally:
    """Throw so many completions, drawn from the seed and the number of their step, and say what came of it."""
    tally = Tally()
    firing = Range(tally)
    last_step = first_step + math.ceil(completions / (PROMPTS * GROUP_SIZE)) - 1
    started = time.monotonic()
    judged: list[tuple[str, Verdict, list]] = []
    told = 0
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(first_step, last_step + 1):
            chunk = Path(scratch) / f"chunk-{number // CHUNK_STEPS}"
            source = Hostile(random.Random(f"{seed} {number}"))
            texts = [source.text() for _ in range(PROMPTS * GROUP_SIZE)]
            with guarded(tally, f"step {number}"):
                log = RunLog(chunk / "run")
                judged += firing.step(number, texts, source, log)
            if (number + 1) % CHUNK_STEPS == 0 or number == last_step:
                with guarded(tally, f"pages at step {number}"):
                    stored = [text for step in read_rollouts(chunk / "run") for text in step.completions]
                    if stored != [text for text, _, _ in judged]:
                        tally.failures.append(f"rollouts.jsonl of step {number} differs from what was logged")
                    firing.pages(chunk, judged, source)
                judged = []
                for failure in tally.failures[told:]:
                    progress(f"FAILURE by step {number}: {failure}")
                told = len(tally.failures)
                killed = sum(counts["killed"] for counts in tally.outcomes.values())
                progress(f"{tally.completions} completions, {time.monotonic() - started:.0f} s, {killed} killed, "
                         f"{tally.late} late, {len(tally.failures)} failures")  # fmt: skip
    return tally


class guarded:
    """Notes an exception as a failure of this stage, and goes on."""

    def __init__(self, tally: Tally, stage: str) -> None:
        self.tally, self.stage = tally, stage

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if not isinstance(error, Exception):
            return False
        self.tally.failures.append(f"{self.stage}: {''.join(traceback.format_exception(error))}")
        return True


def lines(tally: Tally, seed: int, seconds: float) -> Iterator[str]:
    """The result as Markdown."""
    kinds = ("right", "wrong", "unscorable", "killed", "died")
    yield f"{tally.completions:,} completions from seed {seed} in {seconds / 60:.0f} minutes; "
    yield f"{sum(sum(c[k] for k in kinds[:3]) for c in tally.outcomes.values()):,} verdicts, "
    yield f"{tally.numbers:,} rewards, credits and metrics, {tally.pages} pages.\n\n"
    yield f"**{len(tally.failures)} exceptions, NaNs or leaks; {tally.late} verdicts later than "
    yield f"{DEADLINE_SECONDS:g} s + {GRACE_SECONDS:g} s.**\n\n"
    yield f"| verifier | {' | '.join(kinds)} | slowest, s | that text |\n| --- |{' ---: |' * (len(kinds) + 1)} --- |\n"
    for name, counts in tally.outcomes.items():
        slowest = tally.slowest.get(name, Slowest())
        cells = " | ".join(f"{counts[kind]:,}" for kind in kinds)
        yield f"| {name} | {cells} | {slowest.seconds:.2f} | {_preview(slowest.text)} |\n"
    yield "\nUnscorable counts hostile references; killed (at the deadline) and died are among them.\n\n"
    for stage in ("tokenizer", "compare.html", "report.html"):
        if stage in tally.slowest:
            yield f"Slowest {stage}: {tally.slowest[stage].seconds:.2f} s ({_preview(tally.slowest[stage].text)}). "
    yield "\n"


def _preview(text: str) -> str:
    shown = ascii(text[:40])[1:-1].replace("`", "'").replace("|", "/")
    return f"`{shown}`{f' ... {len(text):,} characters' if len(text) > 40 else ''}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--completions", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first-step", type=int, default=0, help="begin here, to make a failure again")
    parser.add_argument("--markdown", type=Path, help="also write the result here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    tally = campaign(options.completions, options.seed, options.first_step, lambda line: print(line, flush=True))
    text = "".join(lines(tally, options.seed, time.monotonic() - started))
    print(text)
    if options.markdown:
        options.markdown.write_text(text)
    return bool(tally.failures or tally.late)


if __name__ == "__main__":
    sys.exit(main())
