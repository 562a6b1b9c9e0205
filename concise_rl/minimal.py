"""The whole algorithm on one screen, in plain torch: sample, judge, filter, shape, assign credit, step.

What is left out against `trainer.py`: several processes, micro-batches, checkpoints, a reference model, LoRA, vLLM, and
what acts on sampling. A recipe that asks for more is refused. A test holds both to the same shaped rewards, credits and
first update on the same rollouts.

    python -m concise_rl.minimal --method hapo --steps 20
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from concise_rl.batch import OPTIONAL_FIELDS, RolloutBatch
from concise_rl.data import Prompt, render
from concise_rl.engine.collect import collect
from concise_rl.engine.groups import judge, leave_out
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Shaper, Transform
from concise_rl.methods.method import Method, Result, States
from concise_rl.methods.metrics import step_metrics
from concise_rl.methods.recipes import load_method
from concise_rl.model.sampling import sample_tokens
from concise_rl.options import Teaching, Truncated, ZeroVariance
from concise_rl.rollouts import LocalRollout, TokenVocabulary
from concise_rl.verifiers import Verifier


def token_logprobs(model: Any, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> Tensor:
    """Log-prob of each sampled token in nats at temperature 1, (N, T), 0 beyond a completion's end."""
    rows = [torch.tensor([*p, *c]) for p, c in zip(prompts, completions, strict=True)]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)  # right-padded: causal attention never looks there
    mask = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
    logits = model(input_ids=ids, attention_mask=mask.long()).logits.float()
    logprobs = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    own = [logprobs[n, len(p) - 1 :][: len(c)] for n, (p, c) in enumerate(zip(prompts, completions, strict=True))]
    return torch.nn.utils.rnn.pad_sequence(own, batch_first=True)


def policy_loss(
    logprobs: Tensor,  # (N, T), differentiable
    old_logprobs: Tensor,  # (N, T), of the policy that sampled
    credit: Tensor,  # (N,) or (N, T)
    lengths: Tensor,  # (N,)
    *,
    loss_type: str,
    max_tokens: int,
    epsilon: float = 0.2,
    epsilon_high: float = 0.2,
) -> Tensor:
    """Clipped policy gradient; `loss_type` names the denominator: own length, all tokens, or N x the token limit."""
    mask = (torch.arange(logprobs.shape[1]) < lengths[:, None]).float()
    credit_NT = (credit if credit.ndim == 2 else credit[:, None]).float()
    ratio = (logprobs - old_logprobs).exp()
    loss_NT = -torch.min(ratio * credit_NT, ratio.clamp(1 - epsilon, 1 + epsilon_high) * credit_NT) * mask
    match loss_type:
        case "grpo":
            return (loss_NT.sum(1) / lengths).mean()
        case "bnpo" | "dapo":
            return loss_NT.sum() / lengths.sum()
        case "dr_grpo":
            return loss_NT.sum() / (len(lengths) * max_tokens)
    raise ValueError(f"loss_type={loss_type!r}: use grpo, bnpo, dapo or dr_grpo")


def rollout(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    verifier: Verifier,
    *,
    group_size: int,
    max_tokens: int,
    step: int,
    truncated: Truncated = Truncated.as_is,
) -> tuple[RolloutBatch, list[list[int]], list[list[int]]]:
    """Sample G completions of each prompt and judge them; also returns the token ids of prompts and completions."""
    asked = [prompt for prompt in prompts for _ in range(group_size)]
    texts = [render(prompt, tokenizer, None) for prompt in asked]
    prompt_ids = [tokenizer(text)["input_ids"] for text in texts]
    vocabulary = TokenVocabulary(frozenset({tokenizer.eos_token_id}), tokenizer.convert_tokens_to_ids("</think>"))
    completion_ids = sample_tokens(
        model,
        prompt_ids,
        max_new_tokens=max_tokens,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        eos_token_ids=set(vocabulary.eos_ids),
        pad_token_id=tokenizer.pad_token_id,
    )
    answers = tokenizer.batch_decode([[t for t in ids if t not in vocabulary.eos_ids] for ids in completion_ids])
    pairs = [(a, p.reference) for a, p in zip(answers, asked, strict=True)]
    cut_off = [vocabulary.cut_off(ids) for ids in completion_ids]
    verdicts = judge(verifier, pairs, cut_off, truncated=truncated, deadline_seconds=5.0)
    rows = [
        LocalRollout(p.id, str(text), ids, answer, verdict, p.columns, max_tokens, p.reference)
        for p, text, ids, answer, verdict in zip(asked, texts, completion_ids, answers, verdicts, strict=True)
    ]
    batch = collect(rows, group_size=group_size, step=step, vocabulary=vocabulary).batch
    return batch, prompt_ids, completion_ids


def update(
    model: Any,
    optimizer: torch.optim.Optimizer,
    batch: RolloutBatch,
    prompt_ids: Sequence[Sequence[int]],
    completion_ids: Sequence[Sequence[int]],
    method: Method,
    states: States,
    teaching: Teaching | None = None,
    **loss_options: Any,
) -> tuple[Result, States]:
    """One step of learning; returns what the method made of the batch, and the components' new states."""
    batch = leave_out(batch, teaching or Teaching())  # truncated rows, groups without variance
    batch, states = method.filter(batch, states)  # which rows teach
    value = batch.task_reward  # (N,)
    reward, metrics = value, dict[str, float]()
    for slot, link in method.of_kind(Transform):  # reward to reward, then reward to credit
        out, state = method.at(slot, batch.step)(batch, value, states.get(slot))
        states = states if state is None else {**states, slot: state}
        value, metrics = out.value, metrics | out.metrics
        reward = value if isinstance(link, Shaper) else reward
    rows = batch.counts.nonzero().flatten()
    if len(rows):
        logprobs = token_logprobs(model, [prompt_ids[n] for n in rows], [completion_ids[n] for n in rows])
        loss = policy_loss(logprobs, logprobs.detach(), value[rows], batch.lengths[rows], **loss_options)
        loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return Result(reward, value, batch.counts, metrics), states


def loss_options(method: Method, columns: Sequence[str]) -> dict[str, Any]:
    """The recipe's options of `policy_loss`.

    Raises:
        UserError: the recipe asks for what this file leaves out; names it.
    """
    known = {"loss_type", "epsilon", "epsilon_high", "num_generations"}
    given = {f"columns.{name}" for name in columns}
    needs = [need for need in sorted(method.needs) if need in OPTIONAL_FIELDS or ("." in need and need not in given)]
    beyond = [*method.of_sampling, *needs, *(f"trainer.{name}" for name in sorted(set(method.loss) - known))]
    if method.loss.get("loss_type", "bnpo") not in ("grpo", "bnpo", "dapo", "dr_grpo"):
        beyond.append(f"trainer.loss_type={method.loss['loss_type']}")
    if beyond:
        raise UserError(
            f"method {method.name} asks for {', '.join(beyond)}, which is left out here: concise-rl train "
            f"method={method.name}"
        )
    return {"loss_type": "bnpo"} | {k: v for k, v in method.loss.items() if k in known - {"num_generations"}}


def main(argv: Sequence[str] | None = None) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from concise_rl.assets import TINY
    from concise_rl.testbeds import ChainSum
    from concise_rl.verifiers import VERIFIERS

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--method", default="hapo", help="a recipe that changes rewards and credits alone")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=16, help="P")
    parser.add_argument("--group-size", type=int, help="G; by default the recipe's, or 8")
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--truncated", type=Truncated, default=Truncated.as_is, choices=list(Truncated))
    groups = [ZeroVariance.keep, ZeroVariance.drop]
    parser.add_argument("--zero-variance", type=ZeroVariance, default=ZeroVariance.keep, choices=groups)
    options = parser.parse_args(argv)
    teaching = Teaching(options.truncated, options.zero_variance)

    source = ChainSum()
    train, verifier = source.load("train"), VERIFIERS[source.verifier]()
    try:
        method = load_method(options.method)
        loss = loss_options(method, list(train[0].columns))
    except UserError as error:
        parser.error(str(error))

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(TINY)
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    optimizer, states = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0), method.init()
    for step in range(options.steps):
        prompts = [train[int(i)] for i in torch.randint(len(train), (options.prompts,))]
        group_size = options.group_size or method.loss.get("num_generations", 8)
        batch, prompt_ids, completion_ids = rollout(
            model, tokenizer, prompts, verifier, group_size=group_size, max_tokens=options.max_tokens, step=step,
            truncated=teaching.truncated,
        )  # fmt: skip
        result, states = update(
            model, optimizer, batch, prompt_ids, completion_ids, method, states, teaching,
            max_tokens=options.max_tokens, **loss,
        )  # fmt: skip
        seen = step_metrics(batch, result.reward, result.credit)
        sys.stdout.write(f"step {step:3d}  accuracy {seen['accuracy']:.3f}  mean tokens {seen['mean_tokens']:.1f}\n")


if __name__ == "__main__":
    main()
