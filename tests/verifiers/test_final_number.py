"""How a number is written, and what beside it is none."""

import pytest

from concise_rl.verifiers import FinalNumber

RIGHT = [
    ("It takes 3 and 1/4 hours.", "3.25"),
    ("#### 3 3/4", "3.75"),
    (r"\boxed{3\dfrac{1}{4} \text{ cups}}", "3.25"),
    (r"\boxed{\tfrac12}", "0.5"),
    (r"\boxed{\frac{-7}{2}}", "-3.5"),
    ("¾", "0.75"),
    ("-2 1/2", "-2.5"),
    ("It is ***7***.", "7"),
    ("It is `7`", "7"),
    ("The field has 7 m².", "7"),
    (r"\boxed{7\,\text{m}^2}", "7"),
    (r"\boxed{7 \text{ per 3 hours}}", "7"),
    ("He earns $7 per 2 weeks.", "7"),
    ("1 234 567 people", "1234567"),
    ("9\u2009500", "9500"),
    (r"\boxed{9\,500}", "9500"),
    ("７", "7"),
    ("7€", "7"),
    ("x = - 3", "-3"),
    ("- 3 apples\n- 4 pears\nTogether 7", "7"),
    (r"\boxed{x = 6 \times 7 = 42}", "42"),
    (r"\boxed{\text{Total cost} = \$42}", "42"),
    ("42 = 6 × 7", "42"),
    (r"\boxed{2.5 \times 10^{3}}", "2500"),
    (r"\boxed{0.\overline{3}}", "1/3"),
    (r"\boxed{\text{42 apples}}", "42"),
    (r"\boxed{30^\circ}", "30"),
    ("5 p.m.", "5"),
]
WRONG = [
    (r"\boxed{2+2=5}", "5"),
    (r"\boxed{2x=10}", "10"),
    (r"\boxed{x^2=25}", "25"),
    (r"\boxed{3, 5}", "5"),
    (r"\boxed{3 < 5}", "5"),
    (r"\boxed{42 = 6 \times 8}", "42"),
    (r"\boxed{2516_9}", "2516_8"),
    ("1 1/2", "2.5"),
    ("5\n100", "5100"),
    ("5 a.m.", "5 p.m."),
    (r"\boxed{10\% \text{ decrease}}", "10% increase"),
    (r"\boxed{0.1000000000000000055511151231257827}", "0.1"),
    (r"\boxed{a_5}", "5"),
]


@pytest.mark.parametrize(("completion", "reference"), RIGHT)
def test_right(completion, reference):
    verdict = FinalNumber()(completion, reference)
    assert (verdict.correct, verdict.scorable) == (True, True), verdict


@pytest.mark.parametrize(("completion", "reference"), WRONG)
def test_wrong(completion, reference):
    verdict = FinalNumber()(completion, reference)
    assert (verdict.correct, verdict.scorable) == (False, True), verdict
