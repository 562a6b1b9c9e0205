"""Which stored samples to tune on, without reinforcement learning. Lengths and verdicts decide, texts are not read."""
