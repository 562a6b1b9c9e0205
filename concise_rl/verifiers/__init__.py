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

VERDICTS = 1
"""One more whenever a verifier judges any text otherwise: stored verdicts of two numbers are not mixed."""


def verdict_version() -> str:
    """What verdicts depend on besides the verifier's fields: this package's number, and the library that reads math."""
    from importlib.metadata import version

    return f"{VERDICTS}, math-verify {version('math-verify')}"


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
    "verdict_version",
    "verify_many",
]
