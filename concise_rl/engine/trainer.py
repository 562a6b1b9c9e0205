"""`ConciseTrainer`: TRL's GRPO with prompts, rows, reward and credit taken over by a method.

The last of six classes, each a file, that are the only ones to know TRL: `ForwardTrainer` samples and scores,
`LeanTrainer` computes the loss, `ResumableTrainer` saves and resumes, `RowsTrainer` says how the rows of a generation
come about, `AsyncTrainer` takes them from a process that samples ahead, where one is asked for, and this one builds the
`RolloutBatch`, applies the method, and writes the credit of this rank's rows. TRL does the rest (optimizer, sharding,
logging). `minimal.py` is the same algorithm on one screen.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather
from torch import Tensor
from trl import GRPOConfig

from concise_rl.batch import OPTIONAL_FIELDS, RolloutBatch
from concise_rl.engine.async_trainer import AsyncTrainer
from concise_rl.engine.collect import Collected
from concise_rl.engine.dataset import plain_dataset
from concise_rl.engine.dataset import training_dataset as training_dataset
from concise_rl.engine.groups import check_teaching, leave_out
from concise_rl.engine.lean import ConciseConfig as ConciseConfig
from concise_rl.engine.order import PromptSource
from concise_rl.engine.outcome import step_record
from concise_rl.engine.reference import check_moving
from concise_rl.engine.resuming import check_window
from concise_rl.engine.rows import Generation
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Component
from concise_rl.methods.method import Method, Result
from concise_rl.methods.recipes import as_method
from concise_rl.model.loading import EMBEDDED
from concise_rl.options import Teaching, ZeroVariance
from concise_rl.ranks import every_rank
from concise_rl.rollouts import StepSink, TokenVocabulary, single_token
from concise_rl.verifiers import MathAnswer, Verifier

SIGNALS = frozenset(OPTIONAL_FIELDS)
"""What only a forward pass under the sampling policy can tell."""


class ConciseTrainer(AsyncTrainer):
    """GRPO whose prompts, rows, reward and credit come from plug-in components.

    Args:
        model: a causal language model, its name or folder, or `embedded:tiny`.
        method: a recipe's name, components such as `Hapo(weight=0.5)`, or the `Method` that `load_method` gives.
        train_dataset: a `datasets.Dataset` with prompts and answers, or what `training_dataset` made.
        args: any `trl.GRPOConfig`. What the method's recipe sets (`loss_type`, `epsilon_high`, ...) holds where `args`
            has TRL's default; see `ConciseConfig.of`.
        verifier: completion and answer to `Verdict`; called once a completion.
        eval_dataset: as `train_dataset`.
        prompt_column, answer_column: of the data sets; every other column can be named by a component.
        sinks: told of every generation and every optimizer step, on the main process.
        think_end: the tag that ends the thinking phase; one token of the tokenizer, or phases do not exist.
        verify_deadline_seconds: after this a verification is killed and its row counted as not scorable.
        teaching: what becomes of completions that were cut off and of groups without variance.
        kwargs: passed on to `trl.GRPOTrainer` (`processing_class`, `peft_config`, `callbacks`, ...).

    Raises:
        UserError: a component needs what tokenizer, data or schedule cannot give, or the data cannot be used.
    """

    def __init__(
        self,
        model: Any,
        *,
        method: str | Method | Component | Sequence[Component],
        train_dataset: Any,
        args: GRPOConfig | None = None,
        verifier: Verifier | None = None,
        eval_dataset: Any = None,
        prompt_column: str = "prompt",
        answer_column: str = "answer",
        sinks: Sequence[StepSink] = (),
        think_end: str = "</think>",
        verify_deadline_seconds: float = 5.0,
        teaching: Teaching | None = None,
        **kwargs: Any,
    ) -> None:
        if "reward_funcs" in kwargs:
            raise UserError("reward_funcs: the verifier is the reward, and the method shapes it; give verifier=")
        self.method = as_method(method)
        self.states = self.method.init()
        self.verifier = verifier or MathAnswer()
        self.verify_deadline_seconds = verify_deadline_seconds
        self.teaching = teaching or Teaching()
        self.sinks = list(sinks)
        self.generation = Generation([])
        columns = {"prompt_column": prompt_column, "answer_column": answer_column}
        rows, own = plain_dataset(train_dataset, self.verifier, **columns), ConciseConfig.of(args, self.method.loss)
        self.prompt_source = PromptSource(rows, self.method, own.seed)
        super().__init__(
            model=EMBEDDED.get(model, model) if isinstance(model, str) else model,
            reward_funcs=[task_reward],
            args=own,
            train_dataset=rows,
            eval_dataset=None if eval_dataset is None else plain_dataset(eval_dataset, self.verifier, **columns),
            **kwargs,
        )
        self.vocabulary = TokenVocabulary(
            frozenset(self.eos_token_ids), single_token(self._tokenizer, think_end), think_end
        )
        self.vocabulary.check(self.method.needs)
        if self.method.sampler:
            self.method.sampler.check(
                self.vocabulary, group_size=self.num_generations, limit=self.max_completion_length
            )
            self.rollout_func = self._roll_out
        check_teaching(self.method, self.teaching, self.num_generations)
        check_window(self.args)
        check_moving(self.args, adapter=self.ref_model is None, sharded=self._sharded)

    def visits_per_prompt(self) -> float:
        """How often the whole run draws each prompt, on average."""
        args = self.args
        if args.max_steps <= 0:
            return float(args.num_train_epochs)
        generations = (
            args.max_steps * args.gradient_accumulation_steps / args.steps_per_generation / self.num_iterations
        )
        return generations * args.generation_batch_size / args.num_generations / len(self.train_dataset)

    # -- one generation -----------------------------------------------------------------------------------------------

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        """The task rewards of all ranks as TRL takes them, (N, 1), NaN where unscorable."""
        verdicts = [s.rollout.verdict for s in self.generation.samples]
        rewards = [[v.reward if v is not None and v.scorable else torch.nan] for v in verdicts]
        return gather(torch.tensor(rewards, dtype=torch.float32, device=self.accelerator.device))

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **options
    ):
        """While signals are awaited, the first scoring pass yields them, with entropies."""
        awaited, self.generation.awaiting = self.generation.awaiting, False
        scored = super()._get_per_token_logps_and_entropies(
            model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy or awaited, **options
        )
        if awaited:
            self.generation.signals = scored[:2]
        return scored

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        training = self._mode == "train"
        group_size = self.num_generations if training else self.num_generations_eval
        if training:
            inputs = self.prompt_source.rows(inputs, group_size, self.states, self._place)
        wants_signals = bool(SIGNALS & self.method.needs)
        hand = self.generation = Generation(inputs, awaiting=wants_signals)
        with self._scheduled():
            output = super()._generate_and_score_completions(inputs)
        if wants_signals:
            logprobs = self._score(output)[0]
            if training:
                output["old_per_token_logps"] = self._with_drawn(logprobs)
                if output.get("sampling_per_token_logps") is not None:
                    output["sampling_per_token_logps"] = self._with_drawn(output["sampling_per_token_logps"])
        hand.awaiting = False

        collected = self._collect(group_size)
        result = self._apply(collected, training)
        self._write(output, collected, result, training)
        self.generation = Generation([])
        return output

    def _score(self, output: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Old log-probs and entropies, (B, T) each: those of TRL's own pass if it ran one, else of one pass now."""
        if self.generation.signals is None:
            ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
            mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
            with torch.no_grad():
                self._get_per_token_logps_and_entropies(
                    self.model, ids, mask, output["completion_ids"].shape[1], compute_entropy=True
                )
        assert self.generation.signals is not None
        return self.generation.signals

    def _with_drawn(self, logprobs: Tensor) -> Tensor:
        """Log-probs, (B, T), with those of the tokens that the method's sampler drew itself in their places."""
        logprobs = logprobs.clone()
        for b, sample in enumerate(self.generation.samples):
            for place, logprob in sample.rollout.drawn.items():
                logprobs[b, place] = logprob
        return logprobs

    def _collect(self, group_size: int) -> Collected:
        local = [s.rollout for s in self.generation.samples]
        if self.generation.signals is not None:
            logprobs, entropies = (signal.detach().float().cpu().numpy() for signal in self.generation.signals)
            local = [
                dataclasses.replace(
                    r, logprobs=logprobs[b, : len(r.token_ids)], entropies=entropies[b, : len(r.token_ids)]
                )
                for b, r in enumerate(local)
            ]
        return self._batch_of(every_rank(local), group_size, list(self.method.components.values()))

    def _apply(self, collected: Collected, training: bool) -> Result:
        """What the method makes of the step. Evaluation sees the state of training and must not move it."""
        batch = leave_out(collected.batch, self.teaching)
        states = self.states if training else copy.deepcopy(self.states)
        result, states = self.method.apply(batch, states)
        if training:
            self.states = self.method.observe(self._all_sampled(batch.replace(counts=result.counts)), states)
        return result

    def _all_sampled(self, batch: RolloutBatch) -> RolloutBatch:
        """What a curriculum sees: the step, and behind it the groups that a refill threw away, which do not count."""
        curriculum = self.method.curriculum
        if not curriculum or self.teaching.zero_variance is not ZeroVariance.refill:
            return batch
        thrown = every_rank([s.rollout for s in self.generation.thrown])
        if not thrown:
            return batch
        rows = every_rank([s.rollout for s in self.generation.samples]) + thrown
        seen = self._batch_of(rows, batch.group_size, [curriculum]).batch
        return seen.replace(counts=torch.cat([batch.counts, torch.zeros(len(thrown), dtype=torch.bool)]))

    def _write(self, output: dict[str, Any], collected: Collected, result: Result, training: bool) -> None:
        """Credit and mask into what trains, metrics into the logs, the step to whoever wants to see it."""
        record = step_record(collected, result, self.method, self.teaching)
        self._replace_trl_logs(record.metrics, result.reward, result.credit)
        output["advantages"] = self._own_credit(result.credit, output["completion_ids"].shape[1])
        self._leave_out(output, result.counts)
        if training and self.accelerator.is_main_process:
            for sink in self.sinks:
                sink.on_rollouts(record)

    def _own_rows(self, rows_N: Tensor) -> Tensor:
        """This rank's rows of what all ranks hold."""
        size = len(self.generation.samples)
        return rows_N[self.accelerator.process_index * size :][:size].to(self.accelerator.device)

    def _own_credit(self, credit: Tensor, local_T: int) -> Tensor:
        """This rank's credit, as TRL's loss takes it: (B,) or (B, T)."""
        own = self._own_rows(credit)
        if own.ndim == 2:
            own = torch.nn.functional.pad(own, (0, max(0, local_T - own.shape[1])))[:, :local_T]
        return own.to(torch.float32)

    def _leave_out(self, output: dict[str, Any], counts_N: Tensor) -> None:
        """Take the rows that do not count out of the loss, its denominators and the KL term."""
        if bool(counts_N.all()):
            return
        mask = output["completion_mask"]
        mask *= self._own_rows(counts_N)[:, None].to(mask.dtype)
        loss_mask_BT = mask * output.get("tool_mask", 1)
        output["num_items_in_batch"] = self.accelerator.gather(loss_mask_BT.sum()).sum()

    # -- logs ---------------------------------------------------------------------------------------------------------

    def _replace_trl_logs(self, metrics: dict[str, float], reward: Tensor, credit: Tensor) -> None:
        """TRL logged its own rewards and advantages of this batch; what trains are ours."""
        logged = self._metrics[self._mode]
        for key in [k for k in logged if k.startswith("rewards/")] + ["reward", "reward_std", "frac_reward_zero_std"]:
            logged.pop(key, None)
        for name, value in metrics.items():
            logged[name].append(value)
        credit_N = credit if credit.ndim == 1 else credit.mean(dim=1)
        for column, values in (("advantages", credit_N), ("rewards", reward)):
            rows = self._logs[column] if column == "advantages" else self._logs["rewards"][task_reward.__name__]
            for _ in range(min(len(values), len(rows))):
                rows.pop()
            rows.extend(values.tolist())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs, start_time)  # puts the metrics of this step into `logs`
        if "loss" in logs and self._mode == "train" and self.accelerator.is_main_process:
            for sink in self.sinks:
                sink.on_metrics(self.state.global_step, {k: v for k, v in logs.items() if v is not None})

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """TRL writes a README beside every checkpoint; only a model that is pushed needs one."""
        if self.args.push_to_hub:
            super().create_model_card(*args, **kwargs)


def task_reward(**_: Any) -> list[float]:
    """The name under which TRL lists the reward; `ConciseTrainer._calculate_rewards` computes it."""
    raise RuntimeError("ConciseTrainer judges completions itself; TRL must not call this")
