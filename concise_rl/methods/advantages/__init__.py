"""Reward in, credit out: one file a paper or idea. Not here: length terms that are rewards, which are shapers."""
