"""Options that several layers share. Those of a few words are enums: Hydra and plain strings meet the same check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from concise_rl.errors import UserError

E = TypeVar("E", bound=Enum)


class Variant(str, Enum):
    """Which definition holds where a paper and its released code differ; each component says how they do."""

    paper = "paper"
    code = "code"


def choose(field: str, kind: type[E], value: E | str) -> E:
    """`value` as a member of `kind`, by its value.

    Raises:
        UserError: not one of them; the message names the field and lists the choices.
    """
    try:
        return kind(value)
    except ValueError:
        choices = ", ".join(str(member.value) for member in kind)
        raise UserError(f"{field}={value!r}: choose one of {choices}") from None


class Truncated(str, Enum):
    """What a completion is that the token limit cut off before its end; `concise_rl.engine.groups` applies it.

    - `wrong`: a wrong answer, whatever its text says: `correct` is False and the reward is the one that the verifier
      gives to an empty completion. It counts everywhere.
    - `as_is`: what the verifier says of the text there is. It counts everywhere.
    - `mask`: judged as it is, for the logs; left out of all that learns: not scorable for shapers and advantages (no
      baseline, no history, credit 0), no token in the loss, its denominators and the KL term.
    """

    wrong = "wrong"
    as_is = "as_is"
    mask = "mask"


class ZeroVariance(str, Enum):
    """What becomes of a group whose rows that count all have one task reward; `concise_rl.engine.groups` applies it.

    - `keep`: it gets the credit that the method gives it, and its tokens count in the loss denominators.
    - `drop`: it is left out of all that learns, as if it had not been sampled.
    - `refill`: another prompt takes its place, drawn anew until every group has variance or the rounds are used up;
      groups that are still without are dropped.
    """

    keep = "keep"
    drop = "drop"
    refill = "refill"


@dataclass
class Teaching:
    """Which completions teach, for reward, baseline, history, loss and logs alike; docs/truncation.md.

    Attributes:
        truncated: what a completion is that the token limit cut off.
        zero_variance: what becomes of a group whose rows that count all have one task reward.
        refill_rounds: draws of other prompts in a step, at most, under `zero_variance=refill`.
    """

    truncated: Truncated = Truncated.as_is
    zero_variance: ZeroVariance = ZeroVariance.keep
    refill_rounds: int = 3

    def __post_init__(self) -> None:
        self.truncated = choose("truncated", Truncated, self.truncated)
        self.zero_variance = choose("zero_variance", ZeroVariance, self.zero_variance)
        if self.refill_rounds < 1:
            raise UserError(f"refill_rounds={self.refill_rounds}: need at least 1; zero_variance=drop draws nothing")

    @property
    def leaves_out(self) -> bool:
        """Whether rows may be left out of what learns."""
        return self.truncated is Truncated.mask or self.zero_variance is not ZeroVariance.keep


class Action(str, Enum):
    """What follows a collapse: a warning; a checkpoint and the end of the run; an older checkpoint at half the rate."""

    warn = "warn"
    stop = "stop"
    rollback = "rollback"


@dataclass
class Guard:
    """When a run is warned of, ended, or taken back.

    Attributes:
        nonfinite_steps: so many optimizer steps in a row with a gradient that is not finite end the run; each one is
            skipped and counted as `skipped_steps`.
        action: what follows a collapse.
        window: steps that a mean is taken over; a rollback goes back at least as many.
        accuracy_share: collapse is accuracy below this share of its mean over the first `window` steps,
        entropy: or entropy, in nats a token, below this,
        truncated: or at least this share of completions cut off by the token limit,
        tokens_share: or mean tokens below this share of their start while accuracy is below its own start: the policy
            has learned to stop, not to think shorter.
    """

    nonfinite_steps: int = 5
    action: Action = Action.warn
    window: int = 4
    accuracy_share: float = 0.5
    entropy: float = 1e-4
    truncated: float = 1.0
    tokens_share: float = 0.1

    def __post_init__(self) -> None:
        self.action = choose("guard.action", Action, self.action)
        if self.nonfinite_steps < 1 or self.window < 1:
            raise UserError(
                f"guard.nonfinite_steps={self.nonfinite_steps}, guard.window={self.window}: need at least 1 each"
            )


QUESTION = "{question}"


@dataclass
class Distillation:
    """CRISP (arXiv 2603.05433): the policy learns from itself under an instruction to be concise.

    Attributes:
        instruction: put before the question where the teacher reads it; or a text that holds `{question}`, which takes
            the question there.
        refresh: steps between copies of the policy into the teacher; 0 keeps the one that the run began with.
    """

    instruction: str = "Solve the problem concisely: no step that the answer does not need, no repetition."
    refresh: int = 50

    def __post_init__(self) -> None:
        if not self.instruction.strip():
            raise UserError("distill.instruction is empty, so teacher and policy would be one: give an instruction")
        if self.refresh < 0:
            raise UserError(f"distill.refresh={self.refresh}: give steps between copies, or 0 for none")

    def instructed(self, question: str, between: str) -> str:
        """The question with the instruction, which `between` parts from it unless the instruction places it itself."""
        if QUESTION in self.instruction:
            return self.instruction.replace(QUESTION, question)
        return f"{self.instruction}{between}{question}"
