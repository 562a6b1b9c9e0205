"""What every logged number means: one table, from which displays take labels and units and docs/metrics.md is made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower", ""]


@dataclass(frozen=True)
class Metric:
    """One logged number.

    Attributes:
        key: its name in metrics.jsonl and summary.json.
        label: its name for people.
        unit: the unit shown; `%` means that the stored number is a fraction and people see it times 100.
        definition: formula and denominator, in the axes of `concise_rl.batch`.
        source: where the number is made.
        better: the direction that is an improvement, empty where there is none.
    """

    key: str
    label: str
    unit: str
    definition: str
    source: str
    better: Better = ""

    def text(self, value: float | None) -> str:
        """The value for people, without its unit's name but with `%`; a dash where there is none."""
        if value is None or not math.isfinite(value):
            return "–"
        if self.unit == "%":
            return f"{100 * value:.1f} %"
        if self.unit in ("tokens", "s"):
            return f"{value:.1f}"
        if self.unit == "ratio":
            return f"{value:.2f}"
        if self.unit == "count":
            return f"{value:.0f}"
        return f"{value:.3g}" if 0 < abs(value) < 0.01 else f"{value:.3f}"


_STEP = "one training step"
_TRL = "TRL, same step"
_EVAL = "evaluation"
_REPLAY = "replay"

_TABLE = (
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
        "optimizer steps from the weights that sampled the step's rows to those that learn; only under engine=async",
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
    Metric(
        "oracle_ratio",
        "tokens / oracle",
        "ratio",
        "mean tokens / mean tokens of the shortest known correct completion of the same problems; 1 is the optimum",
        _EVAL,
        "lower",
    ),
    Metric("median_tokens", "median tokens", "tokens", "median of sampled tokens over all rows", _EVAL, "lower"),
    Metric("p90_tokens", "90th percentile of tokens", "tokens", "of sampled tokens over all rows", _EVAL, "lower"),
    Metric("mean_think_tokens", "thinking tokens", "tokens", "mean tokens before the first `</think>`", _EVAL, "lower"),
    Metric("mean_answer_tokens", "answer tokens", "tokens", "mean tokens after the first `</think>`", _EVAL),
    Metric(
        "pass_at_k",
        "pass@k",
        "%",
        "mean over problems of 1 - C(n - c, k) / C(n, k), c right of n samples (arXiv 2107.03374 section 2.1)",
        _EVAL,
        "higher",
    ),
    Metric(
        "majority_at_k",
        "majority@k",
        "%",
        "mean over problems and blocks of k samples: the most frequent answer is right (arXiv 2203.11171)",
        _EVAL,
        "higher",
    ),
    Metric(
        "tokens_cv",
        "spread of tokens",
        "%",
        "mean over problems of std / mean of a problem's lengths, ddof 1; 2 samples or more (after arXiv 2505.16881)",
        _EVAL,
    ),
    Metric(
        "repetition_frac",
        "repeated tokens",
        "%",
        "mean over rows of the share of tokens in a 10-gram that stood before (after arXiv 2502.03373 section 4.5)",
        _EVAL,
        "lower",
    ),
    Metric(
        "hedges_per_100",
        "hedges",
        "per 100 tokens",
        "100 x occurrences of hedging words (perhaps, maybe, ...) / sampled tokens (after arXiv 2504.14047)",
        _EVAL,
    ),
    Metric(
        "thinking_markers_per_100",
        "thinking markers",
        "per 100 tokens",
        "100 x occurrences of words that turn back (wait, let me check, ...) / sampled tokens (after arXiv 2504.14047)",
        _EVAL,
    ),
    Metric("empty_frac", "empty", "%", "rows without text / all rows; they count as wrong", _EVAL, "lower"),
    Metric("no_think_end_frac", "without think end", "%", "rows whose text lacks `</think>` / all rows", _EVAL),
    Metric(
        "several_think_ends_frac",
        "several think ends",
        "%",
        "rows with two `</think>` or more / all rows; thinking counts to the first, the answer is after the last",
        _EVAL,
        "lower",
    ),
    Metric(
        "accuracy_by_length",
        "accuracy by length",
        "%",
        "accuracy in the four quarters of lengths, ranked within a level of difficulty",
        _EVAL,
    ),
    Metric(
        "budget_area",
        "area under budget curve",
        "%",
        "integral of accuracy over log budget / log(last / first budget), by trapezoids",
        _EVAL,
        "higher",
    ),
    Metric(
        "arise",
        "ARISE",
        "",
        "mean over problems of sum of da (t_before / t_after)^sign(da), da change of accuracy (arXiv 2510.06014)",
        _EVAL,
        "higher",
    ),
    Metric(
        "regret",
        "regret",
        "points",
        "100 x (best value there is - (accuracy - price x mean tokens)), at a price of a token (docs/testbeds.md)",
        _EVAL,
        "lower",
    ),
    Metric(
        "below",
        "below the frontier",
        "points",
        "100 x (accuracy of the frontier at the same mean tokens - accuracy); none below its cheapest policy",
        _EVAL,
        "lower",
    ),
    Metric(
        "beyond",
        "beyond the frontier",
        "tokens",
        "mean tokens - tokens of the frontier at the same accuracy; none above its best accuracy",
        _EVAL,
        "lower",
    ),
    Metric(
        "budget_gap",
        "gap over budgets",
        "points",
        "mean over token budgets on the frontier of 100 x (its accuracy - that of the policy cut off at the budget)",
        _EVAL,
        "lower",
    ),
    Metric(
        "yap_index",
        "YapIndex",
        "characters",
        "mean over categories of the median YapScore of their rows (arXiv 2601.00624)",
        _EVAL,
        "lower",
    ),
    Metric(
        "yap_score",
        "YapScore",
        "characters",
        "median over rows of max(0, characters of the reply - characters of the minimal answer) (arXiv 2601.00624)",
        _EVAL,
        "lower",
    ),
    Metric("samples", "samples", "count", "completions a problem", _EVAL),
    Metric("runs", "runs", "count", "runs whose completions are pooled in one entry of a comparison", _EVAL),
    Metric("accuracy_spread", "± accuracy", "%", "half the range of accuracy over the pooled runs", _EVAL, "lower"),
    Metric(
        "mean_tokens_spread", "± tokens", "tokens", "half the range of mean tokens over the pooled runs", _EVAL, "lower"
    ),
    Metric("mcnemar_p", "McNemar p", "", "exact two-sided McNemar test of equal accuracy, one sample a problem", _EVAL),
    Metric("problems", "problems", "count", "problems evaluated", _EVAL),
    Metric("accuracy_interval", "accuracy, 95 %", "%", "[low, high] of accuracy at 95 % confidence", _EVAL),
    Metric(
        "mean_tokens_interval", "mean tokens, 95 %", "tokens", "[low, high] of mean tokens at 95 % confidence", _EVAL
    ),
    Metric(
        "accuracy_points",
        "change of accuracy",
        "points",
        "100 x (accuracy after - accuracy before), paired by problem",
        _EVAL,
        "higher",
    ),
    Metric(
        "tokens_percent",
        "change of tokens",
        "percent",
        "100 x (mean tokens after / mean tokens before - 1), paired by problem",
        _EVAL,
        "lower",
    ),
    Metric(
        "log_tokens_percent",
        "change of a typical length",
        "percent",
        "100 x (exp(mean log tokens after - mean log tokens before) - 1), paired by problem",
        _EVAL,
        "lower",
    ),
    Metric(
        "aes",
        "AES",
        "",
        "l + 3 a if a >= 0 else l + 5 a; l saved tokens, a gained accuracy, as shares of before (arXiv 2501.12570)",
        _EVAL,
        "higher",
    ),
    Metric(
        "elr",
        "excess length reduction",
        "%",
        "(tokens of GRPO - tokens) / (tokens of GRPO - tokens of the start) (arXiv 2508.09726 eq. 4)",
        _EVAL,
        "higher",
    ),
    Metric(
        "reward_correct", "reward if correct", "", "mean shaped reward of the correct scorable rows", _REPLAY, "higher"
    ),
    Metric("reward_wrong", "reward if wrong", "", "mean shaped reward of the wrong scorable rows", _REPLAY, "lower"),
    Metric(
        "mean_abs_credit",
        "size of credit",
        "",
        "mean over rows of the absolute credit, a row's tokens summed first",
        _REPLAY,
    ),
    Metric(
        "flipped_correct_frac",
        "sign flips",
        "%",
        "correct scorable rows with credit > 0 from the task reward, < 0 from the shaped one / correct scorable rows",
        _REPLAY,
        "lower",
    ),
    Metric(
        "credit_length_correlation",
        "credit ~ length",
        "",
        "Pearson correlation of credit and length over the correct scorable rows; negative where short is favoured",
        _REPLAY,
    ),
)

METRICS: dict[str, Metric] = {metric.key: metric for metric in _TABLE}
"""Every metric with a meaning of its own, by key. A component's own metrics are logged as `shaper/<name>`."""
