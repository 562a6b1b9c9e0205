"""The reasoner of each task of the leaderboard: shipped with the package, or warmed up in the runs folder.

python benchmarks/reasoners.py --out runs/methods/reasoners            # both that are not shipped, some minutes each
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from concise_rl.errors import UserError
from concise_rl.testbeds import warmups


@dataclass(frozen=True)
class Reasoner:
    """A task of the leaderboard; how long its runs are, the model's recipe says.

    Attributes:
        task: name of the data source, and of the warm-up.
        model: recipe of the reasoner; of one that is not shipped, of the model that it is like.
        shipped: the package holds it.
        levels: least and most of the column `difficulty`; None where the data have none.
    """

    task: str
    model: str
    shipped: bool = True
    levels: tuple[int, int] | None = None

    def overrides(self, reasoners: Path) -> list[str]:
        """What `concise-rl train` needs to train this reasoner on its task; `reasoners` holds those not shipped."""
        return [
            f"model={self.model}",
            *([] if self.shipped else [f"model.path={reasoners / self.task}"]),
            f"data={self.task}",
        ]


REASONERS = {
    reasoner.task: reasoner
    for reasoner in (
        Reasoner("running_total", "tiny_running_total", levels=(2, 8)),
        Reasoner("which_sum", "tiny_which_sum", levels=(2, 5)),
        Reasoner("chain_sum", "tiny", levels=(2, 6)),
        Reasoner("count_bits", "tiny", shipped=False),
        Reasoner("spell_backward", "tiny", shipped=False),
    )
}


def prepare(reasoner: Reasoner, folder: Path) -> None:
    """Warm the reasoner up in `folder/task`, where neither the package nor the folder has it yet."""
    target = folder / reasoner.task
    if reasoner.shipped or (target / "warmup.json").exists():
        return
    started = time.monotonic()
    metrics = warmups.make(reasoner.task, target)
    print(
        f"{reasoner.task}: {metrics['accuracy']:.1%} right at {metrics['mean_tokens']:.1f} tokens, "
        f"{time.monotonic() - started:.0f} s",
        flush=True,
    )


def main() -> None:
    made = [task for task, reasoner in REASONERS.items() if not reasoner.shipped]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tasks", nargs="*", default=made, metavar="task", help=", ".join(made))
    parser.add_argument("--out", type=Path, default=Path("runs/methods/reasoners"))
    options = parser.parse_args()
    for task in options.tasks:
        if task not in made:
            raise UserError(f"task={task}: there is a reasoner to make for {', '.join(made)}")
        prepare(REASONERS[task], options.out)


if __name__ == "__main__":
    main()
