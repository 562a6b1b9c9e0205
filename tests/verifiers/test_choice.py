"""Which letter a text gives as its answer."""

import pytest

from concise_rl.verifiers import Choice

RIGHT = [
    (r"\boxed{\textbf{(B)}\ \frac12}", "B"),
    (r"\boxed{B. Paris}", "B"),
    (r"\boxed{\text{Answer: B}}", "B"),
    (r"With \boxed{A=\pi r^2} the answer is C.", "C"),
    (r"We get \boxed{x=3}. Answer: (D)", "D"),
    ("The answer is B. Option C is incorrect because D holds.", "B"),
    ("The answer is (B). The options (A), (C) and (D) are wrong.", "B"),
    ("Option A is wrong. Option B is correct. Option C is wrong.", "B"),
    ("(B) is correct, while (C) is too large.", "B"),
    ("I choose B because C is small.", "B"),
    ("The answer is not A but B.", "B"),
    ("The answer is A. Wait, the answer is B", "B"),
    ("Therefore, the correct choice is D, not A.", "D"),
    ("So (D) since (A) is too small", "D"),
    ("Let A be the area. The answer is D. Here A is 5.", "D"),
    ("**Final Answer: C**", "C"),
    ("b)", "B"),
    ("Ｂ", "B"),
    ("La respuesta correcta es la opción (C).", "C"),
    ("La bonne réponse est la D", "D"),
    ("Die richtige Antwort lautet: C", "C"),
    ("La risposta corretta è C", "C"),
    ("A resposta correta é B", "B"),
    ("Правильный ответ — C", "C"),
    ("答案是B", "B"),
    ("因此选 C。", "C"),
    ("正解はCです。", "C"),
    ("정답은 B입니다", "B"),
    ("الإجابة: B", "B"),
    ("उत्तर: B", "B"),
    ("The answers are A and C", "A, C"),
    (r"\boxed{A, C}", "C and A"),
]
WRONG = [
    (r"\boxed{A, B}", "B"),
    (r"\boxed{AB}", "B"),
    (r"\boxed{A=5}", "A"),
    ("The answer is A or B", "A"),
    ("A, B, C, D", "D"),
    ("(A) 5 (B) 6 (C) 7 (D) 8", "D"),
    ("The answer is not B", "B"),
    ("The answer is B. Option C is incorrect.", "C"),
    ("Die Antwort ist A. B ist falsch.", "B"),
    ("Answer: E. The letter D is last.", "D"),
    ("A", "A, C"),
]


@pytest.mark.parametrize(("completion", "reference"), RIGHT)
def test_the_letter_that_is_given_is_read(completion, reference):
    verdict = Choice()(completion, reference)
    assert (verdict.correct, verdict.scorable) == (True, True), verdict


@pytest.mark.parametrize(("completion", "reference"), WRONG)
def test_a_letter_that_only_occurs_is_not(completion, reference):
    verdict = Choice()(completion, reference)
    assert (verdict.correct, verdict.scorable) == (False, True), verdict
