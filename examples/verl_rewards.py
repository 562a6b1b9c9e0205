"""Our verifiers and shapers in verl 0.8.0.dev (volcengine/verl at b178a3cd, 2026-01-29); verl is not imported here.

Right and wrong alone, row by row:

    custom_reward_function.path=examples/verl_rewards.py custom_reward_function.name=compute_score

Whole groups, shaped by a method; memory of earlier steps too:

    reward_manager.source=importlib reward_manager.name=ConciseRewardManager \\
    reward_manager.module.path=examples/verl_rewards.py reward_model.use_reward_loop=False \\
    +reward_model.reward_kwargs.method=hapo

verl's reward loop judges each completion by itself as soon as it is sampled, so a group cannot be compared there: it
must be off. verl computes credit and loss itself, so methods with their own advantage, filter or sampler are refused.
A reward manager has no place in verl's checkpoints: after a restart a method with a memory begins with an empty one.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch

from concise_rl import RolloutBatch, UserError, content_key, load_method
from concise_rl.rewards import check_servable
from concise_rl.verifiers import MathAnswer, Verdict, verify_many


def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> dict[str, float]:
    """verl's reward of one completion, `score`, and whether it is right, `acc`."""
    (verdict,) = verify_many(MathAnswer(), [(solution_str, str(ground_truth))])
    return {"score": verdict.reward, "acc": float(verdict.correct)}


class ConciseRewardManager:
    """verl's reward manager: `manager(data, return_dict=True)` puts each shaped reward on its completion's last token.

    Args:
        tokenizer: decodes the responses.
        num_examine, compute_score, reward_fn_key: as verl hands them over; the verifier decides here.
        method: a recipe of concise_rl.
        fields: of its components, as `load_method` takes them.
    """

    def __init__(
        self,
        tokenizer: Any,
        num_examine: int = 0,
        compute_score: Any = None,
        reward_fn_key: str = "data_source",
        method: str = "kimi",
        **fields: Any,
    ) -> None:
        self.tokenizer, self.verifier = tokenizer, MathAnswer()
        self.method = load_method(method, fields)
        check_servable(self.method)
        self.states = self.method.init()
        if any(state is not None for state in self.states.values()):
            warnings.warn(f"{method} remembers earlier steps, and verl's checkpoints do not hold that", stacklevel=2)

    def __call__(self, data: Any, return_dict: bool = False) -> Any:
        if "rm_scores" in data.batch.keys():  # noqa: SIM118 - a TensorDict
            raise UserError(
                "reward_model.use_reward_loop=True judges rows one by one: set it to False for whole groups"
            )
        prompt_width = data.batch["prompts"].shape[-1]
        lengths = data.batch["attention_mask"][:, prompt_width:].sum(dim=-1).tolist()
        verdicts = self._verdicts(data, lengths)
        if data.meta_info.get("validate"):
            rewards = [verdict.reward for verdict in verdicts]
        else:
            rewards = self._shaped(data, lengths, verdicts)
        tensor = torch.zeros_like(data.batch["responses"], dtype=torch.float32)
        for row, (reward, length) in enumerate(zip(rewards, lengths, strict=True)):
            tensor[row, max(length, 1) - 1] = reward
        acc = [float(verdict.correct) for verdict in verdicts]
        return {"reward_tensor": tensor, "reward_extra_info": {"acc": acc}} if return_dict else tensor

    def _verdicts(self, data: Any, lengths: list[int]) -> list[Verdict]:
        rows = zip(data.batch["responses"], lengths, strict=True)
        texts = [self.tokenizer.decode(ids[:length], skip_special_tokens=True) for ids, length in rows]
        answers = [str(entry["ground_truth"]) for entry in data.non_tensor_batch["reward_model"]]
        return verify_many(self.verifier, list(zip(texts, answers, strict=True)))

    def _shaped(self, data: Any, lengths: list[int], verdicts: list[Verdict]) -> list[float]:
        """The rows sorted into groups by `uid`, shaped, and put back into verl's order."""
        groups: dict[str, list[int]] = {}
        for row, uid in enumerate(data.non_tensor_batch["uid"]):
            groups.setdefault(str(uid), []).append(row)
        if len({len(rows) for rows in groups.values()}) != 1:
            raise UserError("the groups of this batch have different sizes: shaping needs all rollouts of each prompt")
        order = [row for rows in groups.values() for row in rows]
        heads = [rows[0] for rows in groups.values()]
        batch = RolloutBatch.of(
            # verl draws a new uid each step; a history needs a key that stays.
            prompt_keys=[self._key(data, row) for row in heads],
            group_size=len(order) // len(heads),
            step=int(data.meta_info.get("global_steps", 0)),
            lengths=[lengths[row] for row in order],
            limits=[data.batch["responses"].shape[-1]] * len(order),
            truncated=[lengths[row] == data.batch["responses"].shape[-1] for row in order],
            correct=[verdicts[row].correct for row in order],
            scorable=[verdicts[row].scorable for row in order],
            task_reward=[verdicts[row].reward for row in order],
        )
        result, self.states = self.method.apply(batch, self.states)
        rewards = [0.0] * len(order)
        for row, reward in zip(order, result.reward.tolist(), strict=True):
            rewards[row] = reward
        return rewards

    def _key(self, data: Any, row: int) -> str:
        """Of the prompt's own tokens, without the padding, and of the answer."""
        prompts = data.batch["prompts"]
        own = data.batch["attention_mask"][row, : prompts.shape[-1]].bool()
        answer = data.non_tensor_batch["reward_model"][row]["ground_truth"]
        return content_key(self.tokenizer.decode(prompts[row][own]), str(answer))
