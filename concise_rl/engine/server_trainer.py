"""`ServerTrainer`: TRL's asynchronous GRPO on a vLLM server, with a method's groups, shaping and state in its worker.

`async_worker.py` makes the rows; TRL has the loss, the ratios to the sampler's log-probs, the server's weights and the
distributed engine; here is what joins them: one configuration, checkpoints that hold every rollout once, and logs that
hear of a step when it learns.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from trl import GRPOConfig
from trl.experimental.async_grpo import AsyncGRPOConfig, AsyncGRPOTrainer

from concise_rl.batch import OPTIONAL_FIELDS
from concise_rl.engine import checkpoint
from concise_rl.engine.async_worker import Generate, RolloutWorker
from concise_rl.engine.dataset import plain_dataset
from concise_rl.engine.disk import CheckpointError
from concise_rl.engine.fields import EFFECTIVE, ConciseConfig, is_set
from concise_rl.engine.groups import check_teaching
from concise_rl.engine.resuming import check_continues, fingerprint
from concise_rl.engine.saving import Resumable
from concise_rl.engine.tree_attention import trl_anywhere
from concise_rl.engine.vllm_completions import VLLMCompletions
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Component
from concise_rl.methods.losses.policy_loss import PolicyLoss
from concise_rl.methods.method import Method
from concise_rl.methods.recipes import as_method
from concise_rl.model.loading import EMBEDDED
from concise_rl.options import Teaching, ZeroVariance
from concise_rl.rollouts import StepSink, TokenVocabulary, single_token
from concise_rl.verifiers import MathAnswer, Verifier

UNUSED_FILE = "unused_rollouts.json"
"""What was sampled beyond a checkpoint's step."""


class ServerTrainer(Resumable, AsyncGRPOTrainer):
    """GRPO whose rows a vLLM server samples while older ones train.

    Args:
        model: its name or folder, or `embedded:tiny`; the server serves it under that name.
        method: a recipe's name, components, or the `Method` that `load_method` gives.
        train_dataset: a `datasets.Dataset` with prompts and answers, or what `training_dataset` made.
        args: TRL's `AsyncGRPOConfig`, with `max_steps`. What the recipe sets holds where `args` has TRL's default.
        verifier: completion and answer to `Verdict`; called once a completion.
        generate: who samples; None asks the server of `args.vllm_server_base_url`.
        weight_transfer: how weights get to who samples; None is TRL's, over NCCL.
        prompt_column, answer_column: of the data set; every other column can be named by a component.
        sinks: told of every step as it begins to learn, and of its metrics, on the main process.
        think_end: the tag that ends the thinking phase.
        verify_deadline_seconds: after this a verification is killed and its row counted as not scorable.
        teaching: what becomes of completions that were cut off and of groups without variance.
        kwargs: passed on to `AsyncGRPOTrainer` (`processing_class`, `callbacks`, `optimizers`).

    Raises:
        UserError: a component or setting that this engine has no place for, with what to set instead.
    """

    def __init__(
        self,
        model: str,
        *,
        method: str | Method | Component | Sequence[Component],
        train_dataset: Any,
        args: AsyncGRPOConfig | None = None,
        verifier: Verifier | None = None,
        generate: Generate | None = None,
        prompt_column: str = "prompt",
        answer_column: str = "answer",
        sinks: Sequence[StepSink] = (),
        think_end: str = "</think>",
        verify_deadline_seconds: float = 5.0,
        teaching: Teaching | None = None,
        **kwargs: Any,
    ) -> None:
        self.method, self.teaching, self.sinks = as_method(method), teaching or Teaching(), list(sinks)
        for name in OURS & kwargs.keys():
            raise UserError(f"{name} has no place in ServerTrainer: {OURS_INSTEAD}")
        args = args or AsyncGRPOConfig("concise-rl-run")
        args = server_config(args, self.method, self.teaching)
        judge, columns = verifier or MathAnswer(), {"prompt_column": prompt_column, "answer_column": answer_column}
        rows = plain_dataset(train_dataset, judge, **columns)
        model = EMBEDDED.get(model, model)
        self.worker = RolloutWorker(
            generate or VLLMCompletions.of(args, model), rows, self.method, judge, args,
            rows_per_step=rows_per_step(args), microbatch=args.per_device_train_batch_size * args.world_size,
            loss=PolicyLoss(loss_type(self.method), max_completion_length=args.max_completion_length),
            teaching=self.teaching, verify_deadline_seconds=verify_deadline_seconds,
        )  # fmt: skip
        if len(rows) < self.worker.groups:
            raise UserError(
                f"train_dataset has {len(rows)} prompts, a step takes {self.worker.groups}: give more, or lower "
                "per_device_train_batch_size"
            )
        with trl_anywhere(args.device):
            super().__init__(model, args=args, train_dataset=rows, rollout_worker=self.worker, **kwargs)
        tokenizer: Any = self.processing_class
        vocabulary = TokenVocabulary(frozenset(self.eos_token_ids), single_token(tokenizer, think_end), think_end)
        vocabulary.check(self.method.needs)
        self.worker.prepare(tokenizer, vocabulary)
        self.states = self.worker.states
        self._unused: list[dict[str, Any]] = []
        self.add_callback(_AtStep(self))

    # -- logs ---------------------------------------------------------------------------------------------------------

    def step_begins(self, step: int) -> None:
        """Tell of the rows that a step learns from, on the main process."""
        made = self.worker.at(step)
        staleness = self.model_version - made.version
        for name, value in (made.record.metrics | {"staleness": float(staleness)}).items():
            self._metrics["train"][name].append(value)
        for sink in self.sinks:
            sink.on_rollouts(made.record)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs, start_time)  # puts the metrics of this step into `logs`
        if "loss" in logs and self.accelerator.is_main_process:
            for sink in self.sinks:
                sink.on_metrics(self.state.global_step, {k: v for k, v in logs.items() if v is not None})

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """TRL writes a README beside every checkpoint; only a model that is pushed needs one."""
        if self.args.push_to_hub:
            super().create_model_card(*args, **kwargs)

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def _facts(self) -> dict[str, Any]:
        return super()._facts() | {
            "components": self.method.class_names,
            "rows_per_step": rows_per_step(self.args),
            "num_generations": self.args.num_generations,
            "num_iterations": 1,
            "prompts": fingerprint(self.train_dataset["prompt_key"]),
            "max_staleness": self.args.max_staleness,
            "weight_sync_steps": self.args.weight_sync_steps,
        }

    def _check_continues(self, folder: str, saved: Mapping[str, Any]) -> None:
        check_continues(folder, saved, self._facts())

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.accelerator.is_main_process:
            self.states, self._unused = self.worker.snapshot(self.state.global_step)
        super()._save_checkpoint(model, trial)

    def _save_beside(self, folder: Path) -> None:
        (folder / UNUSED_FILE).write_text(json.dumps(self._unused))

    def _load_beside(self, folder: Path) -> None:
        step, path = checkpoint.step_of(folder), folder / UNUSED_FILE
        try:
            self.worker.restore(step, self.states, json.loads(path.read_text()))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"{path} cannot be read ({error}): resume from another") from error
        self.model_version = step // self.args.weight_sync_steps  # TRL adds 1 with the first weights that it sends

    # -- what a run asks ----------------------------------------------------------------------------------------------

    def visits_per_prompt(self) -> float:
        """How often the whole run draws each prompt, on average."""
        return self.args.max_steps * self.worker.groups / len(self.train_dataset)

    @contextmanager
    def generation_model(self) -> Iterator[Any]:
        """The plain model in evaluation mode, without gradients, with an attention that needs no trie."""
        model = self.accelerator.unwrap_model(self.model)
        training, attention = model.training, model.config._attn_implementation
        model.set_attn_implementation("sdpa")
        try:
            with torch.no_grad():
                yield model.eval()
        finally:
            model.set_attn_implementation(attention)
            model.train(training)


class _AtStep(TrainerCallback):
    def __init__(self, trainer: ServerTrainer) -> None:
        self.trainer = trainer

    def on_step_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        if self.trainer.accelerator.is_main_process:
            self.trainer.step_begins(state.global_step)


# --- what goes, and what does not ------------------------------------------------------------------------------------

OURS = {"reward_funcs", "tools", "environment_factory", "rollout_worker", "peft_config"}
OURS_INSTEAD = "the verifier is the reward, the rows are plain completions, all weights train and are handed over"

LOSSES = ("bnpo", "dapo", "grpo", "dr_grpo")
"""TRL's loss is the clipped one; these are ways to weigh its rows, which the worker puts into their credit."""

CHOOSE = f"choose {', '.join(LOSSES[:-1])} or {LOSSES[-1]}"


def loss_type(method: Method) -> str:
    """The recipe's, or TRL's default."""
    return str(method.loss.get("loss_type", GRPOConfig.loss_type))


def rows_per_step(args: AsyncGRPOConfig) -> int:
    """Completions that an optimizer step learns from, of all processes."""
    return args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size


def config_of(fields: Mapping[str, Any], output_dir: str, **more: Any) -> AsyncGRPOConfig:
    """The fields of a command's `trainer` as TRL's asynchronous trainer takes them.

    Args:
        fields: as `ConciseConfig` has them; those that say how a synchronous vLLM samples are passed over.
        more: further fields of `AsyncGRPOConfig`.

    Raises:
        UserError: a field is set that TRL's asynchronous trainer has not.
    """
    known = {f.name for f in dataclasses.fields(AsyncGRPOConfig)}
    usual = {f.name: f.default for f in dataclasses.fields(ConciseConfig)}
    apart = {"loss_type", "async_server", *EFFECTIVE["sampling with vLLM"].split()} - {"use_vllm"}
    for name, value in fields.items():
        if name not in known | apart and value != usual[name]:
            remedy = "set trainer.beta=0" if name == "beta" else "leave it out"
            _refuse((True, f"trainer.{name}={value}, which it has not", remedy))
    _refuse((fields.get("loss_type", "dapo") not in LOSSES, f"loss_type={fields.get('loss_type')}", f"{CHOOSE}"))
    taken = {name: value for name, value in fields.items() if name in known}
    return AsyncGRPOConfig(**taken | {"output_dir": output_dir} | more)


def server_config(args: AsyncGRPOConfig, method: Method, teaching: Teaching) -> AsyncGRPOConfig:
    """`args` with what the recipe says where they have TRL's default, once all of it has a place in this engine.

    Raises:
        UserError: the setting that has none, and what to set instead.
    """
    late = "it decides by verdicts that are not there yet"
    curriculum, sampler, cut = (type(c).__name__ for c in (method.curriculum, method.sampler, method.cut))
    scheduled = [name for name in method.schedules if name.startswith("trainer.")]
    by_token = [type(advantage).__name__ for advantage in method.advantages if advantage.by_token]
    signals = sorted(set(OPTIONAL_FIELDS) & method.needs)
    _refuse(
        (method.curriculum, f"the curriculum {curriculum}", f"{late}; take a method without"),
        (method.sampler, f"the sampler {sampler}", "it asks for tokens in turns; take a method without"),
        (method.cut, f"the cut {cut}", "rows are judged once, as sampled; take a method without"),
        (by_token, f"credit by token, as {' and '.join(by_token)} gives it", "take one that gives a row one"),
        (scheduled, f"a schedule of {', '.join(scheduled)}", "sampling stays as it is in a run; leave it out"),
        (signals, ", ".join(signals), "that takes a forward pass of the trainer's; take a method without"),
        (teaching.zero_variance is ZeroVariance.refill, "zero_variance=refill", f"{late}; use drop"),
    )
    args = _with_loss(args, method)
    rows, group, budget = rows_per_step(args), args.num_generations, args.token_budget
    _refuse(
        (args.max_staleness < 1, f"max_staleness={args.max_staleness}", "its loader is a batch ahead; give 1 or more"),
        (args.max_steps < 1, f"max_steps={args.max_steps}", "a step is found in the data by its number; set it"),
        (rows % group, f"num_generations={group}", f"{rows} rows a step make no whole groups; change either"),
        ((budget or 0) > 0, f"token_budget={budget}", "a step has a known number of rows; set 0"),
        (args.eval_strategy != "no", f"eval_strategy={args.eval_strategy}", "it evaluates nothing; set no"),
    )
    check_teaching(method, teaching, group)
    args.token_budget = 0  # None asks the server, and packs as many rows as fit
    return args


def _with_loss(args: AsyncGRPOConfig, method: Method) -> AsyncGRPOConfig:
    args, name = copy.copy(args), method.name
    known = {f.name for f in dataclasses.fields(args)}
    usual = {f.name: f.default for f in dataclasses.fields(GRPOConfig)}
    for field, value in method.loss.items():
        if field in known:
            setattr(args, field, getattr(args, field) if is_set(args, field) else value)
        elif field == "loss_type":
            what = f"loss_type={value} of method {name}"
            _refuse((value not in LOSSES, what, CHOOSE))
        else:
            _refuse((value != usual.get(field), f"{field}={value} of method {name}", "take a method without"))
    return args


def _refuse(*cases: tuple[Any, str, str]) -> None:
    for present, what, remedy in cases:
        if present:
            raise UserError(
                f"TRL's asynchronous trainer does not go with {what}: {remedy}, or use ConciseTrainer (engine=sync)"
            )
