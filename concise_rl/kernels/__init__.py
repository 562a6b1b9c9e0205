"""Log-probs and policy losses straight from hidden states and head: `linear_logprob`, `linear_policy_loss`."""

from concise_rl.kernels.backends import BACKENDS
from concise_rl.kernels.logprob import LogProbs, linear_logprob
from concise_rl.kernels.policy_loss import TokenLoss, linear_policy_loss

__all__ = ["BACKENDS", "LogProbs", "TokenLoss", "linear_logprob", "linear_policy_loss"]
