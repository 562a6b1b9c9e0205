"""Reward in, reward out: one file a paper."""

from concise_rl.methods.shapers.base import Compose, Shaped, Shaper, State, StatelessShaper, check_reward
from concise_rl.methods.shapers.cosine import Cosine
from concise_rl.methods.shapers.dars import Dars
from concise_rl.methods.shapers.hapo import Hapo
from concise_rl.methods.shapers.kimi_length import KimiLength
from concise_rl.methods.shapers.overlong import Overlong
from concise_rl.methods.shapers.pear import Pear
from concise_rl.methods.shapers.plain import Plain
from concise_rl.methods.shapers.repetition import repetition_fraction

SHAPERS: dict[str, type] = {
    "plain": Plain,
    "hapo": Hapo,
    "pear": Pear,
    "kimi_length": KimiLength,
    "cosine": Cosine,
    "overlong": Overlong,
    "dars": Dars,
}
"""Every shaper of the package by the name that recipes use."""

__all__ = [
    "SHAPERS",
    "Compose",
    "Cosine",
    "Dars",
    "Hapo",
    "KimiLength",
    "Overlong",
    "Pear",
    "Plain",
    "Shaped",
    "Shaper",
    "State",
    "StatelessShaper",
    "check_reward",
    "repetition_fraction",
]
