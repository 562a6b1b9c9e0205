"""`RolloutWorker`: our groups, verdicts, shaping and histories inside TRL's asynchronous trainer, beside its updates.

It is what `trl.experimental.async_grpo` calls a rollout worker. Its unit is the step: the prompts of step k, in the
order of the data, G completions each. Steps are judged, shaped and recorded in their order by one thread, whichever is
sampled first, so that histories see what they would see in a synchronous run. TRL takes the rows off a queue.

Step k may begin once the weights of version v(k) - max_staleness are there, v(k) = 1 + k // weight_sync_steps being the
version that learns from it: nothing is sampled that would be too old, so TRL drops nothing. A completion that a weight
update interrupts goes on with the new weights (TRL pauses vLLM, it does not abort), and counts as of the old ones.
"""

from __future__ import annotations

import copy
import json
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

from trl.experimental.async_grpo.async_rollout_worker import RolloutSample

from concise_rl.data.templates import PromptTokens
from concise_rl.engine.async_rows import Made, loss_scale, rows_of, samples_of
from concise_rl.engine.groups import DatasetRow, leave_out
from concise_rl.engine.order import EpochSampler, PromptSource
from concise_rl.engine.outcome import batch_of, judged, step_record
from concise_rl.engine.rows import prompt_text, visible_text
from concise_rl.errors import UserError
from concise_rl.methods.drawing import seeded
from concise_rl.methods.losses.policy_loss import PolicyLoss
from concise_rl.methods.method import Method, States
from concise_rl.options import Teaching
from concise_rl.rollouts import LocalRollout, Sampled, TokenRequest, TokenVocabulary
from concise_rl.verifiers import Verifier

Generate = Callable[[Sequence[TokenRequest]], list[Sampled]]
"""Answers each request, in order, with tokens and their log-probs; several threads may ask at once."""

STOP_SECONDS = 15.0
"""How long the end of training waits for what is being sampled."""


class RolloutWorker:
    """Makes the rows of step after step on threads of its own, by TRL's `RolloutWorkerProtocol`.

    Args:
        generate: samples; `VLLMCompletions`, or any function of requests.
        dataset: rows with `prompt`, `prompt_key`, `reference` and `columns`.
        args: `AsyncGRPOConfig`; of it seed, limit, group size, staleness and template arguments.
        rows_per_step: of all processes.
        microbatch: rows of all processes that TRL's loss takes at a time.
        loss: whose denominators hold.
        teaching: what becomes of completions that were cut off and of groups without variance.
        verify_deadline_seconds: after this a verification is killed and its row counted as not scorable.
    """

    def __init__(
        self,
        generate: Generate,
        dataset: Any,
        method: Method,
        verifier: Verifier,
        args: Any,
        *,
        rows_per_step: int,
        microbatch: int,
        loss: PolicyLoss,
        teaching: Teaching,
        verify_deadline_seconds: float = 5.0,
    ) -> None:
        self.generate, self.method, self.verifier, self.args, self.teaching = generate, method, verifier, args, teaching
        self.verify_deadline_seconds = verify_deadline_seconds
        self.microbatch, self.loss = microbatch, loss
        self.groups = rows_per_step // args.num_generations
        self.order = EpochSampler(dataset, batch_size=self.groups, mini_repeat_count=1, seed=args.seed)
        self.source = PromptSource(dataset, method, args.seed)
        self.states: States = method.init()
        self.rollout_buffer: queue.Queue[RolloutSample] = queue.Queue()
        self.metrics_queue: queue.Queue[dict[str, float]] = queue.Queue()
        self._made: deque[Made] = deque()
        self._newest: list[RolloutSample] = []
        self._next = self._version = 0
        self._changed = threading.Condition()  # guards all of the above
        self._stopped = False
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._prompt_tokens = PromptTokens()

    def prepare(self, tokenizer: Any, vocabulary: TokenVocabulary) -> None:
        """What is known once the trainer has loaded the model's tokenizer."""
        self.tokenizer, self.vocabulary = tokenizer, vocabulary

    # -- TRL's protocol -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin with the first step that is not there yet."""
        self._stopped, self._failure = False, None
        self._thread = threading.Thread(target=self._run, daemon=True, name="rollout-worker")
        self._thread.start()

    def stop(self) -> None:
        """Begin nothing more, and wait a while for what is being sampled."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def update_model_version(self, model_version: int) -> None:
        """These weights sample from now on."""
        with self._changed:
            self._version = model_version
            self._changed.notify_all()

    def check_health(self, stale_after_s: float) -> None:
        """Raise what ended the worker; how long an answer may take is up to `generate`."""
        if self._failure is not None:
            raise self._failure
        if self._thread is None or not self._thread.is_alive():
            raise RuntimeError("the rollout worker has ended, and the trainer waits for its rows")

    # -- what the trainer asks ----------------------------------------------------------------------------------------

    def at(self, step: int) -> Made:
        """The rows that a step begins to learn from; those of earlier steps are done with."""
        with self._changed:
            while self._made and self._made[0].step < step:
                self._made.popleft()
            return self._made[0]

    def snapshot(self, step: int) -> tuple[States, list[dict[str, Any]]]:
        """After so many steps: the method's states as these steps left them, and what was sampled beyond them."""
        with self._changed:
            unused = [made for made in self._made if made.step >= step]
            return unused[0].states if unused else self.states, [made.saved() for made in unused]

    def restore(self, step: int, states: States, unused: Sequence[Mapping[str, Any]]) -> None:
        """Go on from a snapshot, before `start`: what was sampled is shaped anew, to the same bits, and used first."""
        self._made.clear()
        self.states, self._next = states, step
        for saved in unused:
            self._shape(saved["version"], saved["prompt_ids"], rows_of(saved))

    # -- its threads --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        ahead = self.args.max_staleness + 1
        pool = ThreadPoolExecutor(ahead, thread_name_prefix="rollouts")
        try:
            first, end = self._next, self.args.max_steps
            waiting = deque(self._ask(step, pool) for step in range(first, min(first + ahead, end)))
            while waiting and not self._stopped:
                dataset_rows, prompt_ids, answer = waiting.popleft()
                version, sampled = answer.result()
                rows = self._rollouts(dataset_rows, sampled, version)
                self._shape(version, prompt_ids, rows)
                if self._next + len(waiting) < end:
                    waiting.append(self._ask(self._next + len(waiting), pool))
            # TRL's loader takes a batch beyond the last step, and nobody learns from it.
            for sample in self._newest:
                self.rollout_buffer.put(sample)
        except CancelledError:
            pass
        except BaseException as failure:
            self._failure = failure
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _ask(
        self, step: int, pool: ThreadPoolExecutor
    ) -> tuple[list[DatasetRow], list[list[int]], Future[tuple[int, list[Sampled]]]]:
        drawn = [self.source.edited(self.source.dataset[i], step) for i in self.order.prompts_of(step)]
        rows = [row for row in drawn for _ in range(self.args.num_generations)]
        prompt_ids = [ids for ids in self._tokens(drawn) for _ in range(self.args.num_generations)]
        rng = seeded("rows", self.args.seed, step)
        limit = self.args.max_completion_length
        requests = [TokenRequest(tuple(ids), limit, seed=rng.getrandbits(62)) for ids in prompt_ids]
        return rows, prompt_ids, pool.submit(self._sample, step, requests)

    def _tokens(self, rows: Sequence[DatasetRow]) -> list[list[int]]:
        prompts = [row["prompt"] for row in rows]
        if isinstance(prompts[0], str):
            return self.tokenizer(prompts)["input_ids"]
        return self._prompt_tokens(self.tokenizer, prompts, self.args.chat_template_kwargs)

    def _sample(self, step: int, requests: list[TokenRequest]) -> tuple[int, list[Sampled]]:
        """The answers, and the version that was there when they were asked for, once one may sample this step."""
        oldest = 1 + step // self.args.weight_sync_steps - self.args.max_staleness
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._version >= oldest)
            if self._stopped:
                raise CancelledError
            version = self._version
        sampled = self.generate(requests)
        if len(sampled) != len(requests) or any(row.logprobs is None for row in sampled):
            raise UserError(
                f"generate answered {len(requests)} requests with {len(sampled)} rows, or without log-probs: give each "
                "request its tokens and their log-probs, in order"
            )
        return version, sampled

    def _rollouts(
        self, dataset_rows: Sequence[DatasetRow], sampled: Sequence[Sampled], version: int
    ) -> list[LocalRollout]:
        rollouts = [
            LocalRollout(
                prompt_key=row["prompt_key"],
                prompt=prompt_text(row["prompt"]),
                token_ids=list(made.token_ids),
                completion=visible_text(self.tokenizer, self.vocabulary, made.token_ids),
                verdict=None,
                columns=json.loads(row["columns"]),
                limit=self.args.max_completion_length,
                sampler_logprobs=made.logprobs,
                version=(version - 1) * self.args.weight_sync_steps,
            )
            for row, made in zip(dataset_rows, sampled, strict=True)
        ]
        return judged(
            rollouts, dataset_rows, self.verifier, self.vocabulary, self.teaching, self.verify_deadline_seconds
        )

    def _shape(self, version: int, prompt_ids: list[list[int]], rows: list[LocalRollout]) -> None:
        """Apply the method to the next step's rows, and hand them over."""
        collected = batch_of(
            rows,
            list(self.method.components.values()),
            group_size=self.args.num_generations,
            step=self._next,
            vocabulary=self.vocabulary,
        )
        before = self.states
        result, after = self.method.apply(leave_out(collected.batch, self.teaching), copy.deepcopy(before))
        if result.credit.ndim == 2:
            raise UserError(
                f"TRL's asynchronous trainer does not go with method {self.method.name}, which gives each token a "
                "credit of its own: take one that gives a row one, or use ConciseTrainer (engine=sync)"
            )
        record = step_record(collected, result, self.method, self.teaching)
        made = Made(self._next, version, prompt_ids, rows, before, record)
        with self._changed:
            self.states, self._next = after, self._next + 1
            self._made.append(made)
        self._newest = samples_of(made, result.credit * loss_scale(record.batch, self.loss, self.microbatch))
        for sample in self._newest:
            self.rollout_buffer.put(sample)
