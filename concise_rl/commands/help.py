"""What `concise-rl train --help` and `eval --help` say: the choices and fields of this program, in 80 columns."""

from __future__ import annotations

import textwrap

from concise_rl.commands import config as configuration
from concise_rl.methods.registry import recipe_names

USAGE = {
    "train": """\
concise-rl train: train a model, with an evaluation before and after

usage: concise-rl train [-m] [KEY=VALUE ...]

  concise-rl train                                 HAPO on the embedded model
  concise-rl train method=kimi seed=1 trainer.learning_rate=5e-5
  concise-rl train data=local data.path=my.jsonl model=hf model.path=my_model
  concise-rl train method.shapers='[hapo,my_shapers.py:Budget]'
  concise-rl train --config-dir my_method/recipes method=my_method
  concise-rl train -m method=grpo,hapo seed=0,1,2  a sweep, run after run
""",
    "eval": """\
concise-rl eval: how well a model answers, and at how many tokens

usage: concise-rl eval [KEY=VALUE ...]

  concise-rl eval model.path=runs/demo/model
  concise-rl eval model=qwen3_0.6b benchmarks='[gsm8k,math500]'
  concise-rl eval model=hf model.path=my_model benchmark=gsm8k \\
      evaluation.max_new_tokens=2048 mode=forced mode.budget=512
""",
}

GROUPS = {
    "train": ("method", "model", "data", "run", "engine", "peft", "tracking"),
    "eval": ("model", "benchmark", "mode", "backend"),
}

FIELDS = {
    "train": """\
  shaper.hapo.weight=0.5     a component's field     concise-rl components hapo
  trainer.learning_rate=1e-5 any field of trl.GRPOConfig
  evaluation.problems=64     of the test split; 0 skips the evaluation
  run.dir=runs/mine          the run folder          resume=auto  overwrite=true
  seed=0  truncated=as_is|wrong|mask  zero_variance=keep|drop|refill
""",
    "eval": """\
  evaluation.max_new_tokens=N  evaluation.temperature=0.6  evaluation.samples=4
  evaluation.problems=64       how many of the benchmark, evenly spread
  sweep.budgets='[128,256]'    accuracy against a budget of tokens
  out=runs/eval-mine           the folder of the results
""",
}

OPTIONS = """\
  --cfg job         show the configuration, run nothing
  --config-dir DIR  a folder of your own recipes, such as DIR/method/my.yaml
"""


def help_text(command: str) -> str:
    """Usage, the recipes of each group, the fields that matter most, and options."""
    from hydra.core.config_store import ConfigStore

    configuration.register()
    store = ConfigStore.instance()
    parts = [USAGE[command], "choose (GROUP=NAME)"]
    for group in GROUPS[command]:
        names = set(recipe_names(group))
        if group in store.repo:
            names |= {name.removesuffix(".yaml") for name in store.list(group)}
        lead = f"  {group:<10}"
        parts.append(
            textwrap.fill(", ".join(sorted(names)), 80, initial_indent=lead, subsequent_indent=" " * len(lead))
        )
    parts += ["", "set (KEY=VALUE)", FIELDS[command], "options", OPTIONS]
    return "\n".join(parts)
