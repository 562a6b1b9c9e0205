"""Reward in, reward out: one file a paper. Not here: baselines, which are advantages."""
