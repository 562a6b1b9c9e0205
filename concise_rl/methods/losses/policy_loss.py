"""The policy losses of GRPO and its kin as one sum: loss = sum over tokens of weight * token loss.

The token loss is elementwise in the log-prob; the weight holds the mask and the denominator. Denominators count the
rows and tokens of the whole optimizer step, all micro-batches of all ranks, so that how a step is cut changes nothing.
Sources: GRPO arXiv 2402.03300 eq. 3; Dr.GRPO 2503.20783 sec. 3.2; DAPO 2503.14476 eq. 8; CISPO 2506.13585 eq. 4;
SAPO 2511.20347; LUSPO 2602.05261; VESPO 2602.10693; GSPO (sequence-level ratio) 2507.18071 eq. 5; bnpo and two-sided
clipping as in TRL. Off-policy sequence mask: DeepSeek-V3.2 2512.02556 section 3.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

ROW_MEANS = frozenset({"grpo", "sapo"})
ROW_SUMS = frozenset({"luspo"})
TOKEN_MEANS = frozenset({"bnpo"})
GENERATION_TOKEN_MEANS = frozenset({"dapo", "cispo", "vespo"})
FIXED_LENGTH = frozenset({"dr_grpo"})
LOSS_TYPES = ROW_MEANS | ROW_SUMS | TOKEN_MEANS | GENERATION_TOKEN_MEANS | FIXED_LENGTH


@dataclass(frozen=True)
class StepTotals:
    """What one optimizer step holds, all micro-batches of all ranks together.

    Attributes:
        rows: completions.
        tokens: completion tokens under the loss mask.
        mean_tokens: the same, averaged over the optimizer steps that share one generation (DAPO's denominator).
    """

    rows: float
    tokens: float
    mean_tokens: float


@dataclass(frozen=True)
class PolicyLoss:
    """One loss; fields as in `trl.GRPOConfig`.

    Attributes:
        loss_type: of `LOSS_TYPES`.
        epsilon_low, epsilon_high: the ratio is clipped to [1 - low, 1 + high]; CISPO: at most `epsilon_high`.
        delta: upper bound of the unclipped ratio where the credit is negative (two-sided clipping), or None.
        beta: weight of the KL to the reference model.
        unbiased_kl: multiply the KL estimate by the ratio.
        sequence_level: the ratio is the geometric mean over the row.
        sapo_temperatures: for positive and for other credit.
        vespo: k and lambda of VESPO's weight where the credit is not negative, then where it is.
        off_policy_threshold: a row with negative credit is left out where its mean log(sampler / policy) is above this.
        max_completion_length: Dr.GRPO's denominator of a row.
    """

    loss_type: str
    epsilon_low: float = 0.2
    epsilon_high: float = 0.2
    delta: float | None = None
    beta: float = 0.0
    unbiased_kl: bool = False
    sequence_level: bool = False
    sapo_temperatures: tuple[float, float] = (1.0, 1.05)
    vespo: tuple[float, float, float, float] = (2.0, 3.0, 3.0, 2.0)
    off_policy_threshold: float | None = None
    max_completion_length: int = 1

    @property
    def needs_rows(self) -> bool:
        """Whether a token's loss depends on its whole row, so that it cannot be made before the row is known."""
        return self.sequence_level or self.loss_type == "vespo" or self.off_policy_threshold is not None

    def weights(self, mask_NT: Tensor, totals: StepTotals) -> Tensor:
        """What each token loss counts in the sum, (N, T), 0 off the mask."""
        mask_NT = mask_NT.float()
        if self.loss_type in ROW_MEANS:
            return mask_NT / mask_NT.sum(dim=1, keepdim=True).clamp(min=1.0) / max(totals.rows, 1.0)
        denominator = {
            **dict.fromkeys(ROW_SUMS, totals.rows),
            **dict.fromkeys(TOKEN_MEANS, totals.tokens),
            **dict.fromkeys(GENERATION_TOKEN_MEANS, totals.mean_tokens),
            **dict.fromkeys(FIXED_LENGTH, totals.rows * self.max_completion_length),
        }[self.loss_type]
        return mask_NT / max(denominator, 1.0)

    def ratio(self, logprob: Tensor, old_logprob: Tensor, mask_NT: Tensor | None) -> Tensor:
        """pi / pi_old of each token; at sequence level the row's geometric mean, (N, 1), over `mask_NT`."""
        log_ratio = logprob - old_logprob
        if self.sequence_level:
            assert mask_NT is not None
            log_ratio = (log_ratio * mask_NT).sum(dim=1, keepdim=True) / mask_NT.sum(dim=1, keepdim=True).clamp(min=1.0)
        return log_ratio.exp()

    def token_losses(
        self,
        logprob: Tensor,
        old_logprob: Tensor,
        credit: Tensor,
        reference_logprob: Tensor | None = None,
        mask_NT: Tensor | None = None,
        sampler_logprob: Tensor | None = None,
    ) -> Tensor:
        """The loss of each token, of logprob's shape.

        Args:
            logprob: under the policy; differentiable. Any shape, (N, T) where `needs_rows`.
            old_logprob: under the policy that sampled.
            credit: of the token, or of its row where that broadcasts. Every loss is linear in it but for its sign, so
                that importance weights and token masks of the policy's term are factors of the credit.
            reference_logprob: under the reference model, where beta is not 0.
            mask_NT: the tokens that count, where `needs_rows`.
            sampler_logprob: under the engine that sampled, for the off-policy mask; `old_logprob` where None.
        """
        ratio = self.ratio(logprob, old_logprob, mask_NT)
        if self.loss_type == "cispo":
            losses = -ratio.clamp(max=self.epsilon_high).detach() * credit * logprob
        elif self.loss_type == "vespo":
            assert mask_NT is not None
            losses = -self.vespo_weight(logprob.detach() - old_logprob, credit, mask_NT) * credit * logprob
        elif self.loss_type == "sapo":
            temperature = torch.where(credit > 0, *self.sapo_temperatures)
            losses = -torch.sigmoid(temperature * (ratio - 1)) * 4 / temperature * credit
        else:
            bounded = ratio if self.delta is None else ratio.clamp(max=self.delta)
            clipped = ratio.clamp(1 - self.epsilon_low, 1 + self.epsilon_high)
            losses = -torch.minimum(bounded * credit, clipped * credit)
        if self.off_policy_threshold is not None:
            assert mask_NT is not None
            sampler = old_logprob if sampler_logprob is None else sampler_logprob
            losses = losses * self.on_policy(logprob.detach(), sampler, credit, mask_NT)
        if self.beta:
            assert reference_logprob is not None
            kl = kl_estimate(logprob, reference_logprob)
            losses = losses + self.beta * (kl * ratio if self.unbiased_kl else kl)
        return losses.expand_as(logprob)

    def vespo_weight(self, log_ratio_NT: Tensor, credit: Tensor, mask_NT: Tensor) -> Tensor:
        """VESPO's factor of a row, (N, 1) or of credit's shape: e^l w^k e^(-l w), 1 where the row's ratio w is 1.

        w is the product of the row's token ratios; k and l depend on the sign of the credit. The bounds keep e^ finite:
        20 above, and 1e-8 for w below.
        """
        log_w_N1 = (log_ratio_NT.clamp(-20, 20) * mask_NT).sum(dim=1, keepdim=True).clamp(math.log(1e-8), 20)
        k_pos, lambda_pos, k_neg, lambda_neg = self.vespo
        k = torch.where(credit >= 0, k_pos, k_neg)
        decay = torch.where(credit >= 0, lambda_pos, lambda_neg).clamp(min=1e-4)
        return (decay + k * log_w_N1 - decay * log_w_N1.exp()).exp()

    def on_policy(self, logprob_NT: Tensor, sampler_NT: Tensor, credit: Tensor, mask_NT: Tensor) -> Tensor:
        """1 where a row's credit is not negative or it is close to the policy still, else 0; a NaN counts as close."""
        difference_NT = torch.nan_to_num(sampler_NT - logprob_NT, nan=0.0) * mask_NT
        mean_N1 = difference_NT.sum(dim=1, keepdim=True) / mask_NT.sum(dim=1, keepdim=True).clamp(min=1)
        return ((credit >= 0) | (mean_N1 <= self.off_policy_threshold)).to(logprob_NT.dtype)

    def diagnostics(
        self, logprob_NT: Tensor, old_NT: Tensor, credit_NT: Tensor, mask_NT: Tensor, reference_NT: Tensor | None
    ) -> dict[str, Tensor]:
        """Sums over tokens for logs: of clipped ratios and of the KL, by the name that TRL logs the mean under."""
        ratio = self.ratio(logprob_NT, old_NT, mask_NT).expand_as(logprob_NT)
        low = (ratio < 1 - self.epsilon_low) & (credit_NT < 0)
        high = (ratio > 1 + self.epsilon_high) & (credit_NT > 0)
        if self.loss_type == "cispo":
            sums = {"cispo_clip_ratio": (ratio > self.epsilon_high) & (credit_NT > 0)}
        elif self.loss_type in ("sapo", "vespo"):
            sums = {}
        else:
            sums = {"clip_ratio/low_mean": low, "clip_ratio/high_mean": high, "clip_ratio/region_mean": low | high}
        found = {name: (clipped * mask_NT).sum() for name, clipped in sums.items()}
        if self.beta and reference_NT is not None:
            found["kl"] = (kl_estimate(logprob_NT, reference_NT) * mask_NT).sum()
        return found


def kl_estimate(logprob: Tensor, reference_logprob: Tensor) -> Tensor:
    """exp(d) - d - 1 with d = reference - policy: never negative, unbiased under the policy (Schulman's k3)."""
    difference = reference_logprob - logprob
    return difference.exp() - difference - 1
