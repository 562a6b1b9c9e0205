"""Shorter answers without reinforcement learning: sample, select, tune, merge.

Here: reading stores of samples, writing what was selected, tuning on it with TRL's own trainers, averaging weights. Not
here: the selections themselves (`concise_rl.methods.selectors`) and sampling (`concise_rl.evaluation`).
"""
