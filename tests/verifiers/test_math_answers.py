"""Kinds of mathematical answers that people and models write, each with its verdict."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from concise_rl.verifiers import VERIFIERS, MathAnswer, Olympiad

CASES = Path(os.environ.get("CONCISE_RL_CASES", Path(__file__).parents[3] / "shared" / "cases"))


def test_the_collected_cases_come_out_right():
    path = CASES / "answers.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not there; name a folder that has it in CONCISE_RL_CASES")
    cases = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    verifiers = {name: VERIFIERS[name]() for name in {case["verifier"] for case in cases}}
    verdicts = [verifiers[case["verifier"]](case["completion"], case["reference"]) for case in cases]
    assert [c for c, v in zip(cases, verdicts, strict=True) if (v.correct, v.scorable) != (c["right"], True)] == []


# What is boxed, and the reference.
RIGHT = [
    # fonts around numbers
    (r"\text{42}", "42"),
    (r"\mbox{42}", "42"),
    (r"42", r"\mathbf{42}"),
    (r"\boldsymbol{\frac{3}{4}}", r"\frac34"),
    (r"\text{-3.5}", "-3.5"),
    (r"\text{7 cm}", "7"),
    (r"\text{x = 7}", "7"),
    # equations
    ("4x+2y=14", "2x+y=7"),
    ("y-2x=3", "y=2x+3"),
    (r"\frac{x}{2}+y=5", "x+2y=10"),
    ("c^2=a^2+b^2", "a^2+b^2=c^2"),
    (r"4x^2+9y^2=36", r"\frac{x^2}{9}+\frac{y^2}{4}=1"),
    ("2x+3", "y=2x+3"),
    ("7 = x", "7"),
    (r"\overline{AB} = 7", "7"),
    (r"\text{Area of } ABC = 7", "7"),
    (r"m\angle ABC = 60^\circ", "60"),
    ("[ABC] = 84", "84"),
    (r"P(A) = \frac12", "0.5"),
    ("S_n = 7", "7"),
    ("x = 3+4 = 7", "7"),
    (r"6 \times 7 = 42", "42"),
    (r"\binom{5}{2} = 10", "10"),
    (r"x \approx 7", "7"),
    # what stands beside a number
    ("6m", "6"),
    ("6", "6 m"),
    (r"1101_{2}", r"1101_{\text{two}}"),
    (r"1101 \text{ base } 2", "1101_2"),
    ("(1101)_2", "1101_2"),
    ("1101", "1101_2"),
    (r"7 \text{ p.m.}", r"7 \text{ PM}"),
    ("7:30", "7:30 PM"),
    (r"10\%", r"10\% \text{ increase}"),
    (r"30^\circ \text{ N}", r"30^\circ"),
    (r"15 \text{ cm}^2", r"15 \text{ square centimeters}"),
    (r"60 \text{ km/h}", r"60 \text{ kilometers per hour}"),
    ("42m^2", "42"),
    ("5 m", "5"),
    (r"\pounds 5", "5"),
    ("5€", "5"),
    (r"1 \text{ minute and } 5 \text{ seconds}", "1 minute and 5 seconds"),
    # spellings of numbers
    (r"-2\frac{1}{2}", r"-\frac52"),
    (r"1 3/4", "1.75"),
    ("2½", r"\frac52"),
    (r"2 \text{ and } \frac12", "2, 0.5"),
    (r"1\,234\,567", "1234567"),
    (r"11,\! 111,\! 100", "11111100"),
    ("１２３", "123"),
    (r"0.1\overline{6}", r"\frac16"),
    ("0.(142857)", r"\frac17"),
    (r"0.333\ldots", r"\frac13"),
    (r"1.5 \times 10^{-7}", "0.00000015"),
    ("√13", r"\sqrt{13}"),
    # lists, sets and matrices
    ("2, 1", r"1 \text{ and } 2"),
    ("x=2, y=1", "(2,1)"),
    (r"x = \pm 2", "2, -2"),
    (r"\{ \}", r"\varnothing"),
    ("(2,3)", r"\{x \mid 2 < x < 3\}"),
    (r"x \in [-2,7]", "[-2,7]"),
    (r"(-\infty,2) \text{ or } (3,\infty)", r"(-\infty,2)\cup(3,\infty)"),
    (r"x \ge 3 \text{ or } x \le -2", r"$x \le -2$ or $x \ge 3$"),
    (r"1, 2, 3, \dots", r"1,2,3,\ldots"),
    (r"\begin{bmatrix}1\\[4pt]2\end{bmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}"),
    (r"\frac{1}{2} \text{ or } 0.5", r"\frac12"),
    (r"\left( 1, \frac{1}{2} \right)", "(1, 0.5)"),
]
WRONG = [
    ("6n", "6m"),
    (r"\text{41}", "42"),
    ("2x+y=8", "2x+y=7"),
    ("a+b=7", "x+y=7"),
    ("x=7", "y=7"),
    ("AB=7", "CD=7"),
    ("x_1=7", "x_2=7"),
    ("7", "x+y=7"),
    ("x+y=7", "7"),
    ("xy=7", "7"),
    ("7-x=0", "7"),
    (r"\sin x = 1", "1"),
    ("7=x^2", "7"),
    ("3=7", "7"),
    ("3=7", "3"),
    ("x=3+3=7", "7"),
    ("3+3=7, 2", "7, 2"),
    ("x>7", "7"),
    (r"x \ne 7", "7"),
    (r"x \equiv 3 \pmod 7", "7"),
    (r"n=7k, k \in \mathbb{Z}", "7"),
    ("x=y", "7"),
    ("7_8", "7_9"),
    ("1101_3", r"1101_{\text{two}}"),
    ("13_{10}", "1101_2"),
    (r"7 \text{ a.m.}", r"7 \text{ p.m.}"),
    ("3:30 AM", "3:30 PM"),
    (r"10\% \text{ loss}", r"10\% \text{ profit}"),
    (r"30^\circ E", r"30^\circ W"),
    (r"7 \text{ cm}", r"7 \text{ m}"),
    (r"7 \text{ cm}^2", r"7 \text{ cm}^3"),
    (r"7 \text{ minutes}", r"7 \text{ hours}"),
    ("€7", r"\$7"),
    ("7", "7m"),
    ("2", "2s"),
    (r"\frac{n}{2}", r"\frac{N}{2}"),
    ("r+a=1", "R+a=1"),
    (r"1\frac12", r"\frac52"),
    ("0.0000003", "0.0000002"),
    (r"10^{-20}", r"2 \times 10^{-20}"),
    ("0.00012", "0.00013"),
    (r"1,2,4,\ldots", r"1,2,3,\ldots"),
    (r"1,2,\ldots,12", r"1,2,\ldots,10"),
    ("1,2,3", r"1,2,3,\ldots"),
    (r"0.\overline{4}", r"\frac13"),
    (r"x<2 \text{ or } x \ge 3", r"(-\infty,2)\cup(3,\infty)"),
    ("-2,1", "(-2,1)"),
    ("x=1, y=2", "(2,1)"),
    ("7, 7", "7"),
    (r"7 \text{ or } 8", "7"),
    (r"\begin{bmatrix}1\\[4pt]3\end{bmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}"),
]


@pytest.mark.parametrize(("answer", "reference"), RIGHT)
def test_the_same_in_another_form_is_right(answer, reference):
    verdict = MathAnswer()(f"So \\boxed{{{answer}}}.", reference)
    assert (verdict.correct, verdict.scorable) == (True, True), verdict


@pytest.mark.parametrize(("answer", "reference"), WRONG)
def test_what_only_looks_alike_is_wrong(answer, reference):
    verdict = MathAnswer()(f"So \\boxed{{{answer}}}.", reference)
    assert (verdict.correct, verdict.scorable) == (False, True), verdict


@pytest.mark.parametrize(
    ("completion", "reference", "right"),
    [
        ("The answer is ***42***.", "42", True),
        ("Final Answer: `42`", "42", True),
        ("It is <b>42</b>", "42", True),
        ("**Final Answer:** __x = 3/4__", r"\frac34", True),
        ("3*4*5 is the answer: 60", "60", True),
        ("The answer is $x^2 = 25$.", "25", False),
        ("The answer is 2x = 10", "10", False),
        ("The answer is 5 or 6", "5", False),
        ("The answer is 5 apples.", "5", True),
    ],
)
def test_an_answer_without_a_box(completion, reference, right):
    assert MathAnswer()(completion, reference).correct == right


def test_olympiad_reads_names_by_the_same_rules():
    assert Olympiad()(r"\boxed{\angle ABC = 60^\circ}", "60").correct
    assert not Olympiad()(r"\boxed{x^2=60}", "60").correct
