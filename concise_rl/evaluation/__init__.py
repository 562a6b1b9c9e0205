"""How well a model answers and at how many tokens, before and after; and stored rollouts under other methods."""

from concise_rl.evaluation.evaluate import Evaluation, difference, evaluate
from concise_rl.evaluation.metrics import notices, paired_difference, summarize
from concise_rl.evaluation.modes import Mode
from concise_rl.evaluation.replay import Replay, replay
from concise_rl.evaluation.row import EvaluationRow
from concise_rl.evaluation.sweep import BudgetCurve, budget_sweep

__all__ = [
    "BudgetCurve",
    "Evaluation",
    "EvaluationRow",
    "Mode",
    "Replay",
    "budget_sweep",
    "difference",
    "evaluate",
    "notices",
    "paired_difference",
    "replay",
    "summarize",
]
