"""`concise-rl sample`: judged completions of training problems, in an evaluation's store, for `concise-rl select`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from concise_rl.commands import config as configuration
from concise_rl.commands.entry import through_hydra
from concise_rl.commands.evaluate import label_of, load_backend, make_folder
from concise_rl.commands.evaluation import check_eval, evaluate
from concise_rl.commands.train import quiet_libraries
from concise_rl.data import Prompt
from concise_rl.errors import UserError
from concise_rl.methods.quotas import Quota, quotas
from concise_rl.options import choose


def main() -> None:
    """Hydra's entry: overrides on the command line."""
    through_hydra(run, "sample")


def run(config: DictConfig) -> None:
    """Sample each problem under each edit, a file an edit in `out`; made again, the same command goes on."""
    check_eval(config, list(HydraConfig.get().overrides.task))
    check_quota(config)
    edits = configuration.edits_of(config)
    source = configuration.to_object(config.data, "data")
    verifier = configuration.verifier_of(config)

    import torch
    from rich.console import Console

    from concise_rl.model.loading import load_test
    from concise_rl.reporting.evaluations import counting

    quiet_libraries()
    if config.model.threads:
        torch.set_num_threads(config.model.threads)
    problems = load_test(config, source, verifier)
    backend, tokenizer = load_backend(config)
    console = Console(highlight=False)
    out = Path(config.out)
    make_folder(out)
    try:
        for edit in edits:
            name = label_of(edit).strip("-") or "plain"
            asked = list(problems)
            while True:
                with counting(name, console) as on_progress:
                    result = evaluate(
                        config, backend, tokenizer, asked, verifier, edit=edit,
                        mode=configuration.mode_of(config), store=out / f"{name}.jsonl", on_progress=on_progress,
                    )  # fmt: skip
                more = short_of_quota(config, problems, result.rows)
                if not more:
                    break
                asked += more
            right = sum(row.correct for row in result.rows)
            tokens = sum(row.length for row in result.rows)
            console.print(
                f"{name}: {len(result.rows)} completions of {len(problems)} problems, {right} right, {tokens} tokens"
            )
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command goes on from here\n")
        sys.exit(130)
    console.print(f"samples: {out}   next: concise-rl select long2short {out} --out rows.jsonl", soft_wrap=True)


def check_quota(config: DictConfig) -> None:
    """Raises `UserError` where a quota is unknown, or its ceiling below what is sampled at first."""
    quota = config.quota
    if quota.kind is None:
        return
    choose("quota.kind", Quota, quota.kind)
    if quota.k < 1 or quota.ceiling < config.evaluation.samples:
        raise UserError(
            f"quota.k={quota.k}, quota.ceiling={quota.ceiling}: need k of 1 or more, and a ceiling of at least "
            f"evaluation.samples={config.evaluation.samples}"
        )


def short_of_quota(config: DictConfig, problems: Sequence[Prompt], rows: Sequence[Any]) -> list[Prompt]:
    """The problems that are to be sampled once more: right answers not above their quota, room below the ceiling."""
    if config.quota.kind is None:
        return []
    right, sampled, drawn = ({problem.id: 0 for problem in problems} for _ in range(3))
    for row in rows:
        drawn[row.prompt_id] += 1
        sampled[row.prompt_id] += row.verdict.scorable
        right[row.prompt_id] += row.correct
    known = {key: n for key, n in sampled.items() if n}
    wanted = quotas(Quota(config.quota.kind), config.quota.k, right, known)
    room = config.quota.ceiling - config.evaluation.samples
    return [p for p in problems if right[p.id] <= wanted.get(p.id, config.quota.k) and drawn[p.id] <= room]
