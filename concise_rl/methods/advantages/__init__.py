"""From shaped reward to credit: one file a paper or idea, all listed here."""

from concise_rl.methods.advantages.base import Advantage
from concise_rl.methods.advantages.canon import Canon
from concise_rl.methods.advantages.difficulty_weighted import DifficultyWeighted
from concise_rl.methods.advantages.group_relative import GroupRelative
from concise_rl.methods.advantages.leave_one_out import LeaveOneOut
from concise_rl.methods.advantages.sign_safe import SignSafe

ADVANTAGES: dict[str, type] = {
    "group_relative": GroupRelative,
    "leave_one_out": LeaveOneOut,
    "canon": Canon,
    "difficulty_weighted": DifficultyWeighted,
    "sign_safe": SignSafe,
}
"""Every advantage by the name that recipes and the command line use."""

__all__ = ["ADVANTAGES", "Advantage", "Canon", "DifficultyWeighted", "GroupRelative", "LeaveOneOut", "SignSafe"]
