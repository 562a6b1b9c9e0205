"""What a run's figures mean. A rule is a function of the evidence; it finds something, or None."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from concise_rl.reporting.diagnose.evidence import Evidence

PAGE = "docs/diagnose.md"
COLLAPSED, FELL = "Length collapsed", "Accuracy fell"


class Level(str, Enum):
    """`ill`: the run does not do what it is for. `watch`: it does, at a cost. `fine`: as it should be."""

    ill = "ill"
    watch = "watch"
    fine = "fine"


@dataclass(frozen=True)
class Finding:
    """One thing that the figures say.

    Attributes:
        level: how bad it is.
        name: a heading of docs/diagnose.md.
        what: the observation, with its numbers.
        cause: what the figures give as its reason.
        remedy: what to set.
    """

    level: Level
    name: str
    what: str
    cause: str = ""
    remedy: str = ""

    @property
    def page(self) -> str:
        """Where it is explained."""
        return f"{PAGE}#{self.name.lower().replace(' ', '-')}"


Rule = Callable[[Evidence], Finding | None]


def diagnose(evidence: Evidence) -> list[Finding]:
    """The illness, where there is one, else that the curve is healthy; then what comes at a cost.

    A run that broke shows every other fault too, so then its illness stands alone.
    """
    ill = next((finding for rule in ILLNESSES if (finding := rule(evidence))), None)
    if ill and ill.name in (COLLAPSED, FELL):
        return [ill]
    costs = [finding for rule in COSTS if (finding := rule(evidence))]
    if ill:
        return [ill, *(cost for cost in costs if cost.cause != ill.cause)]
    return [*costs, _healthy(evidence)]


# -- length and accuracy -----------------------------------------------------------------------------------------------


def _fell(run: Evidence) -> bool:
    accuracy = run.curve("accuracy")
    return accuracy.change < 0 and accuracy.moved(max(0.05, accuracy.start / 5))


def _collapse(run: Evidence) -> Finding | None:
    tokens = run.curve("mean_tokens")
    if not (tokens.end < 0.6 * tokens.start and tokens.moved(1) and _fell(run)):
        return None
    cause, remedy = _why_short(run)
    return Finding(Level.ill, COLLAPSED, f"{_tokens(run)}, {_accuracy(run)}", cause, remedy)


def _why_short(run: Evidence) -> tuple[str, str]:
    early, loss = run.early, run.trainer("loss_type") or "bnpo"
    if early.pairs and early.inverted > 0.05 * early.pairs:
        return (
            f"of early wrong answers that were shorter than a right one to the same prompt, "
            f"{early.inverted / early.pairs:.0%} earned more: the reward pays for brevity without a right answer",
            "give the length term to right answers alone (value + term * batch.correct), or lower its weight",
        )
    if early.right and early.punished > 0.3 * early.right:
        return (
            f"{early.punished / early.right:.0%} of the early right answers were punished for their length",
            "lower the weight of the length term, or method.advantage='[group_relative,sign_safe]'",
        )
    if early.pressure(_denominator(loss)) < -0.1 <= early.pressure("dr_grpo"):
        return f"the rewards do not favour short answers, the denominator of loss_type={loss} does", (
            "trainer.loss_type=dr_grpo divides every row by the same number"
        )
    return _too_fast(run)


def _broke(run: Evidence) -> Finding | None:
    tokens = run.curve("mean_tokens")
    if not _fell(run) or tokens.end < 0.6 * tokens.start:
        return None
    cause, remedy = _too_fast(run)
    return Finding(Level.ill, FELL, f"{_accuracy(run)}, {_tokens(run)}", cause, remedy)


def _too_fast(run: Evidence) -> tuple[str, str]:
    norms, entropy = run.values("grad_norm"), run.curve("entropy")
    signs = []
    if norms and max(norms) > 3 * norms[0]:
        signs.append(f"the gradient's norm rose from {norms[0]:.3g} to {max(norms):.3g}")
    if entropy.end > 2 * entropy.start:
        signs.append(f"entropy rose from {entropy.start:.3f} to {entropy.end:.3f} nats")
    said = f" ({', '.join(signs)})" if signs else ""
    rate = max(run.values("learning_rate"), default=0.0)
    return (
        f"no figure points at the rewards; most likely the updates were too large{said}",
        f"lower trainer.learning_rate ({rate:.1g} here), or hold the policy with trainer.beta; "
        "guard.action=rollback does the first by itself",
    )


# -- nothing happens ---------------------------------------------------------------------------------------------------


def _idle(run: Evidence) -> Finding | None:
    tokens = run.curve("mean_tokens")
    if tokens.moved(0.05 * tokens.start) or run.curve("accuracy").moved(0.02):
        return None
    cause, remedy = _why_idle(run)
    return Finding(Level.ill, "Nothing changes", f"{_tokens(run)}, {_accuracy(run)}", cause, remedy)


def _why_idle(run: Evidence) -> tuple[str, str]:
    credit, reach = run.whole, sum(run.values("learning_rate"))
    if run.mean("skipped_steps") > 0.5:
        return f"{run.mean('skipped_steps'):.0%} of the steps had a gradient that is not finite and were skipped", (
            "look at grad_norm; train in bfloat16 or float32, lower trainer.learning_rate"
        )
    if run.mean("unscorable_frac") > 0.5:
        return f"{run.mean('unscorable_frac'):.0%} of the answers have no verdict", (
            "choose the verifier that reads these references: data.verifier=..."
        )
    if run.mean("zero_credit_frac") > 0.9:
        return _why_no_credit(run)
    if reach < 1e-5:
        return f"the learning rates add up to {reach:.1g}, and Adam moves no weight farther than about that", (
            "raise trainer.learning_rate"
        )
    if _shapers(run) and credit.rows and credit.shaped < 0.01 * credit.rows:
        return _why_unshaped(run)
    return f"{len(run.metrics)} steps at these learning rates show no change beyond the noise", (
        "train longer, raise trainer.learning_rate, or more prompts a step"
    )


def _why_no_credit(run: Evidence) -> tuple[str, str]:
    credit, share = run.whole, run.mean("zero_credit_frac")
    if credit.groups and credit.unsolved > 0.9 * credit.groups:
        return f"{share:.0%} of the rows have no credit: {credit.unsolved} of {credit.groups} groups are all wrong", (
            "see in rollouts.jsonl whether the verifier reads the answers; take easier problems or zero_variance=refill"
        )
    return f"{share:.0%} of the rows have no credit: {credit.solved} of {credit.groups} groups are all right", (
        "take harder problems, zero_variance=refill, or a method that prices length in such groups too"
    )


def _why_unshaped(run: Evidence) -> tuple[str, str]:
    if 0 < run.visits < 1.5:
        return (
            f"no reward was shaped: each prompt came {run.visits:.1f} times, and a method with a memory compares with "
            "earlier answers to the same prompt",
            "fewer prompts, or more steps: two or more visits a prompt",
        )
    return "no reward was shaped: the method's target or threshold is never reached", (
        "compare its fields (concise-rl methods NAME) with the lengths in the report"
    )


# -- at a cost ---------------------------------------------------------------------------------------------------------


def _unshaped(run: Evidence) -> Finding | None:
    credit, shapers = run.whole, _shapers(run)
    if not (shapers and credit.rows and credit.shaped < 0.01 * credit.rows):
        return None
    cause, remedy = _why_unshaped(run)
    return Finding(Level.watch, "The method does not act", f"{', '.join(shapers)} changed no reward", cause, remedy)


def _all_cut_off(run: Evidence) -> Finding | None:
    curve = run.curve("truncated_frac")
    return _cut(run, Level.ill) if min(curve.start, curve.end) > 0.5 else None


def _cut_off(run: Evidence) -> Finding | None:
    return _cut(run, Level.watch) if 0.2 < run.curve("truncated_frac").end <= 0.5 else None


def _cut(run: Evidence, level: Level) -> Finding:
    curve = run.curve("truncated_frac")
    return Finding(
        level, "Many completions are cut off",
        f"{curve.start:.0%} of the first and {curve.end:.0%} of the last completions reach the token limit",
        f"max_completion_length={run.trainer('max_completion_length')}, truncated={run.config.get('truncated')}",
        "raise trainer.max_completion_length, or say what such rows count as: truncated=wrong|mask",
    )  # fmt: skip


def _uniform(run: Evidence) -> Finding | None:
    share = run.mean("zero_variance_frac")
    if share < 0.7:
        return None
    return Finding(
        Level.watch, "Most groups teach nothing", f"{share:.0%} of the groups have one reward in all rows",
        f"{run.whole.solved} of {run.whole.groups} are all right, {run.whole.unsolved} all wrong",
        "zero_variance=refill draws other prompts in their place; a curriculum avoids them",
    )  # fmt: skip


def _unscorable(run: Evidence) -> Finding | None:
    share = run.mean("unscorable_frac")
    if share < 0.02:
        return None
    return Finding(
        Level.watch, "Answers without a verdict", f"{share:.1%} of the answers could not be judged",
        "the verifier was killed at its deadline, or cannot read the reference",
        "verify_deadline_seconds=, or another data.verifier",
    )  # fmt: skip


def _denominators(run: Evidence) -> Finding | None:
    loss = run.trainer("loss_type") or "bnpo"
    own, even = (run.whole.pressure(_denominator(name), shaped=False) for name in (loss, "dr_grpo"))
    if not run.whole.rows or abs(own - even) < 0.15:
        return None
    way = "shortens" if own < even else "lengthens"
    return Finding(
        Level.watch, "The denominator acts on length", f"loss_type={loss} {way} answers beyond what the rewards ask",
        f"right and wrong alone press {own:+.2f} with it, {even:+.2f} with one divisor for all rows",
        "trainer.loss_type=dr_grpo divides every row by the same number",
    )  # fmt: skip


def _healthy(run: Evidence) -> Finding:
    watched = f"{_tokens(run)}, {_accuracy(run)}"
    tokens, accuracy = run.curve("mean_tokens"), run.curve("accuracy")
    better = tokens.end < tokens.start or accuracy.change > 0
    cause = "no figure shows a fault" if better else "no figure shows a fault, and no gain shows either"
    return Finding(Level.fine, "A healthy curve", watched, cause, "compare on held-out problems: concise-rl compare")


ILLNESSES: tuple[Rule, ...] = (_collapse, _broke, _all_cut_off, _idle)
COSTS: tuple[Rule, ...] = (_unshaped, _cut_off, _uniform, _unscorable, _denominators)


def _shapers(run: Evidence) -> list[str]:
    return [name for name in run.config.get("shaper") or {} if name != "plain"]


def _denominator(loss: str) -> str:
    """The loss type of `LOSSES` with the same divisor."""
    return loss if loss in ("grpo", "dr_grpo") else "bnpo"


def _tokens(run: Evidence) -> str:
    curve = run.curve("mean_tokens")
    return f"tokens {curve.start:.1f} -> {curve.end:.1f} (± {2 * curve.noise:.1f})"


def _accuracy(run: Evidence) -> str:
    curve = run.curve("accuracy")
    return f"accuracy {curve.start:.0%} -> {curve.end:.0%} (± {200 * curve.noise:.0f} points)"
