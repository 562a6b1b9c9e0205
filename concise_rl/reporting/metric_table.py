"""What every logged number means: one table, from which displays take labels and units and docs/metrics.md is made."""

from __future__ import annotations

from concise_rl.reporting.evaluation_metrics import EVALUATED
from concise_rl.reporting.metric import Metric

_STEP = "one training step"
_TRL = "TRL, same step"

_TRAINED = (
    Metric(
        "accuracy",
        "accuracy",
        "%",
        "correct rows / scorable rows; evaluation divides by all rows, an unscorable one counts as wrong",
        _STEP,
        "higher",
    ),
    Metric("mean_tokens", "mean tokens", "tokens", "sum of sampled tokens incl. EOS / N, all rows", _STEP, "lower"),
    Metric(
        "mean_tokens_correct",
        "tokens if correct",
        "tokens",
        "mean tokens over the correct scorable rows; absent where there are none",
        _STEP,
        "lower",
    ),
    Metric(
        "mean_tokens_wrong",
        "tokens if wrong",
        "tokens",
        "mean tokens over the wrong scorable rows; absent where there are none",
        _STEP,
    ),
    Metric("truncated_frac", "truncated", "%", "rows that reached the token limit without EOS / N", _STEP, "lower"),
    Metric(
        "unscorable_frac",
        "unscorable",
        "%",
        "rows without a verdict (verifier killed, reference unreadable) / N",
        _STEP,
        "lower",
    ),
    Metric("reward", "shaped reward", "", "mean over scorable rows of the reward after all shapers", _STEP, "higher"),
    Metric(
        "task_reward",
        "task reward",
        "",
        "mean over scorable rows of the verifier's reward, before shaping",
        _STEP,
        "higher",
    ),
    Metric(
        "zero_variance_frac",
        "groups without signal",
        "%",
        "groups whose scorable rows all have one shaped reward (those left out among them) / P",
        _STEP,
        "lower",
    ),
    Metric(
        "left_out_frac",
        "left out of the loss",
        "%",
        "rows left out by truncated=mask, zero_variance=drop or refill / N; only under one of these",
        _STEP,
    ),
    Metric(
        "cut_frac",
        "cut by the method",
        "%",
        "rows that the method's cut shortened / N; only under a method with one, such as dot",
        _STEP,
    ),
    Metric(
        "sampled_accuracy",
        "accuracy of all sampled",
        "%",
        "correct / scorable rows of all that was sampled, thrown away or not; only under zero_variance=refill",
        _STEP,
        "higher",
    ),
    Metric("refill_rounds", "refill rounds", "", "draws of other prompts; only under zero_variance=refill", _STEP),
    Metric(
        "refilled_groups_frac",
        "refilled groups",
        "%",
        "groups whose place another prompt took / P; only under zero_variance=refill",
        _STEP,
    ),
    Metric(
        "refill_tokens_frac",
        "tokens thrown away",
        "%",
        "sampled tokens of groups that refilling threw away / all sampled tokens; only under zero_variance=refill",
        _STEP,
        "lower",
    ),
    Metric("zero_credit_frac", "rows without credit", "%", "rows whose credit is 0 at every token / N", _STEP, "lower"),
    Metric(
        "wiped_correct_frac",
        "correct but punished",
        "%",
        "correct scorable rows whose credit (summed over tokens) is negative / correct scorable rows",
        _STEP,
        "lower",
    ),
    Metric(
        "mean_entropy",
        "entropy (batch)",
        "nats",
        "mean over rows of the row's mean token entropy; only if the method needs entropies",
        _STEP,
    ),
    Metric(
        "entropy",
        "entropy",
        "nats",
        "mean token entropy over the tokens of rows with credit; left out of a step that has none",
        _TRL,
    ),
    Metric("loss", "loss", "", "value of the surrogate loss; its level carries no meaning, its jumps do", _TRL),
    Metric("grad_norm", "gradient norm", "", "global L2 norm before clipping", _TRL),
    Metric("learning_rate", "learning rate", "", "of this step", _TRL),
    Metric(
        "kl",
        "KL to reference",
        "nats",
        "mean of exp(r - p) - (r - p) - 1 over tokens, r and p the log-probs of reference and policy; only if beta > 0",
        _TRL,
    ),
    Metric("step_time", "step time", "s", "wall time of the whole step, sampling included", _TRL, "lower"),
    Metric(
        "clip_ratio/region_mean", "clipped tokens", "%", "tokens of the loss whose ratio was clipped / tokens", _TRL
    ),
    Metric(
        "skipped_steps",
        "skipped steps",
        "",
        "1 where the gradient was not finite and the optimizer was not stepped, else 0",
        "trainer, each optimizer step (concise_rl.engine.guards)",
        "lower",
    ),
    Metric(
        "rollbacks",
        "rollbacks",
        "",
        "how often the run went back to an older checkpoint, at half the learning rate; only under action=rollback",
        "trainer, each optimizer step (concise_rl.engine.guards)",
        "lower",
    ),
    Metric(
        "generate_seconds",
        "sampling time",
        "s",
        "wall time of sampling alone; under engine=async what the trainer waits for its rows",
        _STEP,
        "lower",
    ),
    Metric(
        "staleness",
        "staleness",
        "steps",
        "optimizer steps from the weights that sampled the step's rows to those that learn; where rows come ahead",
        _STEP,
    ),
    Metric(
        "sampling/importance_sampling_ratio/mean",
        "importance weight",
        "",
        "mean bounded ratio of policy to sampler over the tokens of rows with credit; only of rows that older weights "
        "or vLLM sampled",
        _TRL,
    ),
    Metric(
        "sampling/sampling_logp_difference/mean",
        "distance from sampler",
        "nats",
        "mean distance of the log-probs under policy and sampler, over the same tokens",
        _TRL,
    ),
)

METRICS: dict[str, Metric] = {metric.key: metric for metric in (*_TRAINED, *EVALUATED)}
"""Every metric with a meaning of its own, by key. A component's own metrics are logged as `shaper/<name>`."""
