"""Text and reference to `Verdict`: what is right, judged once a completion."""

from concise_rl.verifiers.base import Verdict, Verifier
from concise_rl.verifiers.choice import Choice
from concise_rl.verifiers.exact import Exact
from concise_rl.verifiers.final_number import FinalNumber
from concise_rl.verifiers.includes import Includes
from concise_rl.verifiers.json_action import JsonAction
from concise_rl.verifiers.math_answer import MathAnswer
from concise_rl.verifiers.olympiad import Olympiad
from concise_rl.verifiers.pool import verify_many

VERIFIERS: dict[str, type] = {
    "math_answer": MathAnswer,
    "olympiad": Olympiad,
    "final_number": FinalNumber,
    "choice": Choice,
    "exact": Exact,
    "includes": Includes,
    "json_action": JsonAction,
}
"""The verifiers by the name that a data source gives."""

__all__ = [
    "VERIFIERS",
    "Choice",
    "Exact",
    "FinalNumber",
    "Includes",
    "JsonAction",
    "MathAnswer",
    "Olympiad",
    "Verdict",
    "Verifier",
    "verify_many",
]
