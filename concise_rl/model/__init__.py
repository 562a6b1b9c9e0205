"""All that touches a transformers model: loading, sampling, scoring, its cache, prompts that a group shares.

Here: tokens in, tokens or log-probs out. Not here: rewards, groups, training loops.
"""
