"""An unmodified `trl.GRPOTrainer` on the embedded model, rewarded by `concise_rl.rewards`; on two ranks, a script."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from concise_rl.assets import REASONERS
from concise_rl.rewards import ShapedReward, as_reward
from concise_rl.testbeds import ChainSum
from concise_rl.testbeds.chain_sum import answer, running_sum

TINY = str(REASONERS["tiny"])


def sums(n: int = 12) -> Dataset:
    """Problems as a TRL user has them: a prompt, an answer, and what else there is."""
    return Dataset.from_list(
        [
            {"prompt": p.messages[-1]["content"], "answer": p.reference, "difficulty": p.columns["difficulty"]}
            for p in ChainSum().load("train")[:n]
        ]
    )


def config(folder: Path, reward: ShapedReward | None = None, **fields: Any) -> GRPOConfig:
    """Steps of seconds on one CPU core."""
    small = {
        "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 96, "max_steps": 3,
        "learning_rate": 1e-4, "bf16": False, "use_cpu": True, "report_to": "none", "logging_steps": 1,
        "disable_tqdm": True, "log_level": "error", "save_strategy": "no", "gradient_checkpointing": False,
    }  # fmt: skip
    return GRPOConfig(str(folder), **small | (reward.config if reward else {}) | fields)


class Rows(GRPOTrainer):
    """TRL's trainer, but for what is sampled: each completion is a function of its question and its global row."""

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        first = self.accelerator.process_index * len(prompt_ids)
        completions = []
        for b, ids in enumerate(prompt_ids):
            question = self._tokenizer.decode(ids)
            rng = random.Random(f"{question}/{first + b}/{self.state.global_step}")
            thought = ";wait,".join([running_sum(question)] * rng.randint(1, 3))
            said = answer(question) if rng.random() < 0.7 else "0"
            text = f"<think>{thought}</think>{said}"
            completions.append([*self._tokenizer.encode(text), self._tokenizer.eos_token_id])
        return completions, None

    def _calculate_rewards(self, *args):
        found = super()._calculate_rewards(*args)
        self.__dict__.setdefault("seen", []).append(found[:, 0].tolist())
        return found


def train(out: Path, rows: int) -> list[Any]:
    """The rewards of three steps of all ranks, and what the reward remembers then."""
    reward = as_reward("hapo")
    args = config(out, reward, per_device_train_batch_size=rows, num_generations=8)
    trainer = Rows(TINY, reward_funcs=reward, callbacks=[reward], args=args, train_dataset=sums(6))
    trainer.train()
    return [trainer.seen, reward.state()]


def main() -> None:
    out, rows = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    found = train(out, rows)
    (out / f"rank{PartialState().process_index}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
