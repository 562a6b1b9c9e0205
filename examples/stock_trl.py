"""A shaper in an unmodified `trl.GRPOTrainer`: give the reward to `reward_funcs` and to `callbacks`."""

import sys

from problems import problems
from trl import GRPOConfig, GRPOTrainer

from concise_rl.assets import REASONERS
from concise_rl.rewards import as_reward

reward = as_reward("hapo", weight=0.5)
args = GRPOConfig(
    output_dir="runs/example-stock",
    max_steps=int(sys.argv[1]) if len(sys.argv) > 1 else 4,
    per_device_train_batch_size=16,
    num_generations=8,
    max_completion_length=128,
    learning_rate=1e-4,
    logging_steps=1,
    save_strategy="no",
    use_cpu=True,
    bf16=False,
    gradient_checkpointing=False,
    **reward.config,  # what the recipe asks of the loss
)
trainer = GRPOTrainer(
    str(REASONERS["tiny"]), reward_funcs=reward, callbacks=[reward], args=args, train_dataset=problems(n=4)
)
trainer.train()
for line in trainer.state.log_history:
    if "rewards/hapo/mean" in line:
        known = line["hapo/known_frac"]
        print(f"step {line['step']}: shaped reward {line['rewards/hapo/mean']:.3f}, prompts with a history {known:.0%}")
