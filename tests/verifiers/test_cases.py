"""Worked cases: what each verifier reads in an answer, and what it makes of a reference."""

import pytest

from concise_rl.errors import UserError
from concise_rl.verifiers import VERIFIERS, Choice, Exact, FinalNumber, Includes, MathAnswer, Olympiad

GSM8K = "She sells 16 - 3 - 4 = <<16-3-4=9>>9 eggs.\nShe makes 9 * 2 = $<<9*2=18>>18.\n#### 18"

ROUNDED = FinalNumber(relative_tolerance=1e-4)
SCIENCE = MathAnswer(relative_tolerance=0.01, e_notation=True)

RIGHT = [
    (FinalNumber(), "16 - 3 - 4 = 9, so 18.", GSM8K),
    (FinalNumber(), "#### 18\nThat took 5 steps.", GSM8K),
    (FinalNumber(), "#### 3\n#### 18", "18"),
    (FinalNumber(), "27", "27.0"),
    (FinalNumber(), "It costs $1,234,567.50 in all.", "1234567.5"),
    (FinalNumber(), "-$3", "-3"),
    (FinalNumber(), "\u22123", "-3"),
    (FinalNumber(), "5-3", "3"),
    (FinalNumber(), r"\boxed{25\%}", "25"),
    (FinalNumber(), "0.1", "1e-1"),
    (FinalNumber(), r"\boxed{18}, found in 2 steps", GSM8K),
    (FinalNumber(), r"\boxed{1{,}234} or \boxed{\$1,\!234}", "1234"),
    (FinalNumber(), r"it is -\frac{3}{4}", "-0.75"),
    (ROUNDED, "2/3", "0.6666666667"),
    (Includes(), "<think>Sydney?</think>It is  canberra.", "Canberra"),
    (FinalNumber(), "3/4", "0.75"),
    (FinalNumber(), "**7** apples for H2O", "7"),
    (FinalNumber(), "<think>9</think>8", "8"),
    (FinalNumber(), "<think></think>7</think>8", "8"),
    (Exact(), "  a \n b ", "a b"),
    (Exact(ignore_case=True), "Straße", "STRASSE"),
    (Choice(), r"\boxed{\text{(B)}}, not (A)", "B"),
    (Choice(), "**Answer:** C. A man said (D) was likely", "(C)"),
    (Choice(), "The correct answer is option b.", "B."),
    (Choice(), "(A) is wrong, so (D)", "d"),
    (Choice(), "I think it is B", "B"),
    (Choice(), "A man chose E\nA good one", "E"),
    (MathAnswer(), r"\boxed{2} at first, then \boxed{\frac{1}{2}}", "0.5"),
    (MathAnswer(), "The final answer is 27.", "27.0"),
    (MathAnswer(), r"\boxed{x^2+2x+1}", "$(x+1)^2$"),
    (MathAnswer(), r"\boxed{2, 1}", "$1$, $2$"),
    (MathAnswer(), r"\boxed{10\%}", "10"),
    (MathAnswer(), r"\boxed{10}", r"$10 \%$"),
    (MathAnswer(), r"\boxed{0.333333}", r"\frac13"),
    (MathAnswer(), r"\boxed{\text{evelyn}}", r"\text{Evelyn}"),
    (MathAnswer(), r"\boxed{x=5}", "5"),
    (MathAnswer(), r"\boxed{3} and then \boxed{", "3"),
    (MathAnswer(), r"\boxed{-\frac13}", "-1./3"),
    (MathAnswer(), r"\boxed{Evelyn}", r"\text{Evelyn}"),
    (MathAnswer(), r"\boxed{\mathrm{Navin}}", "navin"),
    (MathAnswer(), r"\boxed{\frac{20{,}000}{\pi}}", r"\frac{20000}{\pi}"),
    (MathAnswer(), r"\boxed{3 < \lambda \le 4}", "(3,4]"),
    (MathAnswer(), r"\boxed{12^{\mathrm{th}} \text{ grade}}", "12"),
    (SCIENCE, r"\boxed{4.52 \times 10^{33}}", "4.5e33"),
    (SCIENCE, r"\boxed{4.5E+33}", r"It is $\boxed{4.5e33}$ erg."),
    (SCIENCE, r"\boxed{T = 5.04\text{ K}}", "5"),
]
WRONG = [
    (FinalNumber(), "18 #### none", "18"),
    (FinalNumber(), "25%", "0.25"),
    (FinalNumber(), "8/0", "8"),
    (FinalNumber(), "<think>8</think>", "8"),
    (FinalNumber(), "8</think>8</think>", "8"),
    (FinalNumber(), "7" * 5000, "7"),
    (FinalNumber(), "0.1000000000000000055511151231257827", "0.1"),
    (FinalNumber(), r"\boxed{17}, not 18", "18"),
    (ROUNDED, "0.667", "0.6666666667"),
    (ROUNDED, "0.0001", "0"),
    (Includes(), "<think>Canberra</think>It is Sydney.", "Canberra"),
    (Exact(), "A b", "a b"),
    (Choice(), "it is a pity", "A"),
    (Choice(), "answer is a pity", "A"),
    (Choice(), "I think so", "I"),
    (MathAnswer(), r"<think>\boxed{5}</think>", "5"),
    (MathAnswer(), r"\boxed{0.33}", r"\frac13"),
    (MathAnswer(), r"\boxed{(1,2)}", "(2,1)"),
    (MathAnswer(), r"\boxed{3}, that is \boxed{4}", "3"),
    (MathAnswer(), r"\boxed{10\%}", "0.1"),
    (MathAnswer(), r"\boxed{3, 5}", "3"),
    (MathAnswer(), r"\boxed{}", "3"),
    (MathAnswer(), r"\boxed{even}", r"\text{odd}"),
    (MathAnswer(), r"\boxed{\{1,234\}}", "1234"),
    (MathAnswer(), r"\boxed{3 < \lambda \le 4}", "[3,4]"),
    (MathAnswer(), r"\boxed{12^{3}}", "12"),
    (MathAnswer(), r"\boxed{0.2}", "2e-1"),
    (SCIENCE, r"\boxed{4.6 \times 10^{33}}", "4.5e33"),
    (SCIENCE, r"\boxed{i}", "1"),
]
UNREADABLE = [
    (FinalNumber(), "none"),
    (FinalNumber(), "#### none"),
    (FinalNumber(), "8/0"),
    (FinalNumber(), "1" * 5000),
    (Exact(), " \n"),
    (Choice(), "AB"),
    (Choice(), ""),
    (MathAnswer(), ""),
    (MathAnswer(), r"\boxed{}"),
    (Includes(), " "),
    (Olympiad(), ""),
    (Olympiad(), '{"final_answer": []}'),
    (Olympiad(), '{"final_answer": ["1"], "error": "some"}'),
    (Olympiad(), '{"final_answer": ["1, 2"], "error": "1,1,1"}'),
]


@pytest.mark.parametrize(("verifier", "completion", "reference"), RIGHT)
def test_right(verifier, completion, reference):
    verdict = verifier(completion, reference)
    assert (verdict.correct, verdict.scorable, verdict.reward) == (True, True, 1.0), verdict


@pytest.mark.parametrize(("verifier", "completion", "reference"), WRONG)
def test_wrong(verifier, completion, reference):
    verdict = verifier(completion, reference)
    assert (verdict.correct, verdict.scorable, verdict.reward) == (False, True, 0.0), verdict


@pytest.mark.parametrize(("verifier", "reference"), UNREADABLE)
def test_a_reference_that_cannot_be_read_is_nobodys_fault(verifier, reference):
    verdict = verifier(verifier.wrap_reference(reference), reference)
    assert not verdict.scorable
    assert verdict.reason


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("final_number", GSM8K),
        ("choice", "(c)"),
        ("exact", "</nothink>"),
        ("math_answer", r"$11\frac{1}{9} \%$"),
        ("math_answer", r"\boxed{\{1, 2\}}"),
        ("json_action", '{"type": "click", "name": "buy_now"}'),
    ],
)
def test_a_wrapped_reference_verifies_against_itself(name, reference):
    verifier = VERIFIERS[name]()
    assert verifier("<think>so</think>" + verifier.wrap_reference(reference), reference).correct


@pytest.mark.parametrize(
    ("component", "fields"),
    [
        (MathAnswer, {"relative_tolerance": 1}),
        (FinalNumber, {"relative_tolerance": -1}),
        (Olympiad, {"decimal_places": -1}),
    ],
)
def test_a_tolerance_out_of_range_is_refused_by_name(component, fields):
    (name,) = fields
    with pytest.raises(UserError, match=name):
        component(**fields)
