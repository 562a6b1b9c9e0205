"""Long2short without reinforcement learning: from stored samples to files that TRL's SFT and DPO trainers take.

Here: what needs samples and no group of a running policy. Not here: sampling and judging (`evaluation/`), and the rules
by which papers choose (`methods/selectors/`).
"""
