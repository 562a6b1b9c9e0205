"""How well a model answers and at how many tokens, before and after; and stored rollouts under other methods."""

from concise_rl.evaluation.evaluate import Evaluation, difference, evaluate
from concise_rl.evaluation.generate import Completion, generate_completions
from concise_rl.evaluation.metrics import paired_difference, summarize
from concise_rl.evaluation.replay import Replay, replay
from concise_rl.evaluation.row import EvaluationRow

__all__ = [
    "Completion",
    "Evaluation",
    "EvaluationRow",
    "Replay",
    "difference",
    "evaluate",
    "generate_completions",
    "paired_difference",
    "replay",
    "summarize",
]
