"""OlympiadBench's rules: several answers, units, tolerances, intervals, and where the answer is looked for."""

import json

import pytest

from concise_rl.verifiers import Olympiad


def gold(*answers, unit=None, error=None):
    return json.dumps({"final_answer": list(answers), "unit": unit, "error": error})


ANGLES = gold(r"$\angle B E A_{1}=90$,$\angle A E B_{1}=90$", unit=r"^{\circ}")
SURDS = gold(r"$(22+8 \sqrt{6}, 22-8 \sqrt{6})$,$(22-8 \sqrt{6}, 22+8 \sqrt{6})$")

RIGHT = [
    (r"\boxed{84, 69}", gold("$69$,$84$")),
    (r"\boxed{69} and \boxed{84}", gold("$69$", "$84$")),
    (r"First \boxed{7}. So \boxed{69 \text{ and } 84}", gold("$69$,$84$")),
    (r"\boxed{x \in \{3, 1\}}", gold("1,3")),
    (r"\boxed{x=3 \text{ or } x=1}", gold("1,3")),
    (r"\boxed{\pm 2}", gold("2,-2")),
    (r"\boxed{-2, -2}", gold("-2,-2")),
    (r"\boxed{(3,4), (1,2)}", gold("$(1,2), (3,4)$")),
    (r"\boxed{(22-8\sqrt6, 22+8\sqrt6), (22+8\sqrt6, 22-8\sqrt6)}", SURDS),
    (r"\boxed{f(x)=x+1, f(x)=-1}", gold("$f(x)=-1$,$f(x)=x+1$")),
    (r"\boxed{\angle AEB_1 = 90^\circ, 90}", ANGLES),
    (r"\boxed{\frac{q_0}{\sqrt{2CL}}}", gold(r"$I_{\max }=\frac{q_{0}}{\sqrt{2 L C}}$")),
    (r"\boxed{1,234}", gold("1234")),
    (r"\boxed{50\ min}", gold("50", unit="min")),
    (r"\boxed{166 \text{ cm}^2}", gold("$166$", unit="$cm^2$")),
    (r"\boxed{4.3\%}", gold("4.2", unit="%", error="1e-1")),
    (r"\boxed{0.001, 7.1 \cdot 10^{35}}", gold(r"7 \times 10^{35}, 0.002", error="1e34,1e-3")),
    (r"\boxed{60\%}", gold("0.6")),
    (r"\boxed{\frac{2}{25}}", gold(r"8 \%")),
    (r"\boxed{8}", gold(r"8 \%")),
    (r"\boxed{[10,\infty) \cup (-\infty,1]}", gold(r"$(-\infty,1]\cup[10,+\infty)$")),
    (r"The answer is 7.", gold("7")),
]
WRONG = [
    (r"\boxed{69}", gold("$69$,$84$")),
    (r"\boxed{69, 69}", gold("$69$,$84$")),
    (r"\boxed{69, 84, 1}", gold("$69$,$84$")),
    (r"\boxed{-2}", gold("-2,-2")),
    (r"\boxed{3, 5}", gold("3")),
    (r"\boxed{(2,1)}", gold("(1,2)")),
    (r"\boxed{(-7,-1]}", gold("(-7,-1)")),
    (r"\boxed{4.31}", gold("4.2", unit="%", error="1e-1")),
    (r"\boxed{0.042}", gold("4.2", unit="%")),
    (r"\boxed{0.08\%}", gold(r"8 \%")),
    (r"\boxed{0.333333}", gold("1/3")),
    (r"\boxed{3} \boxed{5}, no: \boxed{5}", gold("3,4")),
    (r"<think>\boxed{7}</think> unknown", gold("7")),
]


@pytest.mark.parametrize(("completion", "reference"), RIGHT)
def test_right(completion, reference):
    verdict = Olympiad()(completion, reference)
    assert verdict.correct, verdict


@pytest.mark.parametrize(("completion", "reference"), WRONG)
def test_wrong(completion, reference):
    verdict = Olympiad()(completion, reference)
    assert (verdict.correct, verdict.scorable) == (False, True), verdict


def test_a_plain_reference_is_one_answer_or_several():
    assert Olympiad()(r"\boxed{5, 3}", "3, 5").correct
    assert not Olympiad()(r"\boxed{3}", "3, 5").correct
