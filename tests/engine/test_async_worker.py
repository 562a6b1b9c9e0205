"""TRL's asynchronous trainer with our worker: credit, history and order of a synchronous run, each row used once.

The server is a copy of the policy in this process, which weights reach as they would reach vLLM: paused, sent, resumed.
"""

from __future__ import annotations

import dataclasses
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, TrainerCallback
from trl.experimental.async_grpo import AsyncGRPOConfig
from trl.experimental.async_grpo.async_grpo_trainer import RolloutQueueDataset

from concise_rl.assets import TINY
from concise_rl.commands.config import compose, verifier_of
from concise_rl.engine import checkpoint, vllm_completions
from concise_rl.engine.async_rows import Made
from concise_rl.engine.async_worker import RolloutWorker
from concise_rl.engine.server_trainer import UNUSED_FILE, ServerTrainer, server_config
from concise_rl.engine.trainer import ConciseTrainer
from concise_rl.engine.tree_attention import tree_attention
from concise_rl.engine.vllm_completions import VLLMCompletions
from concise_rl.errors import UserError
from concise_rl.methods.advantages.decs import Decs
from concise_rl.methods.recipes import load_method
from concise_rl.model.sampling import sample_tokens
from concise_rl.options import Teaching
from concise_rl.rollouts import Sampled, TokenRequest

from .conftest import Recorder
from .jobs import ROOT, accelerate_launch, run_to_end
from .test_epochs import few_prompts

STEPS, GROUP, ROWS = 5, 4, 16


class Server:
    """Samples with weights of its own, and takes new ones between two answers."""

    def __init__(self) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(TINY)
        self.paused = threading.Lock()
        self.sent = 0

    def __call__(self, requests):
        logprobs = [[] for _ in requests]
        with self.paused:
            rows = sample_tokens(
                self.model,
                [request.prompt_ids for request in requests],
                max_new_tokens=requests[0].limit,
                temperature=1.3,
                eos_token_ids={self.model.config.eos_token_id},
                pad_token_id=self.model.config.pad_token_id or 0,
                seeds=[request.seed for request in requests],
                on_drawn=lambda row, logprob: logprobs[row].append(logprob),
            )
        return [Sampled(tuple(ids), tuple(own)) for ids, own in zip(rows, logprobs, strict=True)]

    def init_weight_transfer(self) -> None: ...

    def pause(self) -> None:
        self.paused.acquire()

    def send_weights(self, iterator) -> None:
        own = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, tensor in iterator:
                own[name].copy_(tensor)
        self.sent += 1

    def resume(self) -> None:
        self.paused.release()

    def destroy(self) -> None: ...


def config(folder: Path, **fields) -> AsyncGRPOConfig:
    usual = {
        "output_dir": str(folder), "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none",
        "disable_tqdm": True, "per_device_train_batch_size": ROWS, "num_generations": GROUP, "max_steps": STEPS,
        "max_completion_length": 48, "temperature": 1.3, "learning_rate": 1e-3, "weight_decay": 0.0, "max_staleness": 1,
        "save_strategy": "no", "save_steps": 1, "seed": 0,
    }  # fmt: skip
    return AsyncGRPOConfig(**usual | fields)


OF_TRAINER = ("teaching", "reward_funcs")


def make(folder: Path, method="hapo", server=None, **fields) -> tuple[ServerTrainer, Recorder]:
    recorder, server = Recorder(), server or Server()
    options = {name: fields.pop(name) for name in OF_TRAINER if name in fields}
    trainer = ServerTrainer(
        "embedded:tiny", method=method, train_dataset=few_prompts(), args=config(folder, **fields), verifier=VERIFIER,
        generate=server, weight_transfer=server, sinks=[recorder], **options,
    )  # fmt: skip
    return trainer, recorder


VERIFIER = verifier_of(compose([]))


class StopAfter(TrainerCallback):
    """Ends training after so many steps, as a run that is killed behind its checkpoint."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **_):
        control.should_training_stop |= state.global_step == self.step


def replayed(completions: list[list[list[int]]], **options) -> type[ConciseTrainer]:
    """The synchronous trainer, whose model says what was said before, step by step."""

    class Replayed(ConciseTrainer):
        def _generate_single_turn(self, prompt_ids, *args):
            return completions[self.state.global_step], None

    return Replayed


def history(states) -> dict[str, np.ndarray]:
    """HAPO's, by the order of its keys."""
    arrays = states["shaper.hapo"].arrays()
    order = np.argsort(arrays["keys"])
    return {name: column[order] for name, column in arrays.items()}


def same_history(one, other) -> bool:
    return all(np.array_equal(column, history(other)[name]) for name, column in history(one).items())


@pytest.fixture
def kept(monkeypatch):
    """Every step's rows as the worker made them."""
    rows: dict[int, Made] = {}
    at = RolloutWorker.at
    monkeypatch.setattr(RolloutWorker, "at", lambda self, step: rows.setdefault(step, at(self, step)))
    return rows


@pytest.mark.parametrize("method", ["hapo", "dr_saf"])
def test_credit_history_and_order_are_those_of_the_synchronous_trainer(tmp_path, make_trainer, kept, method):
    trainer, seen = make(tmp_path, method)
    trainer.train()
    said = [[list(row.token_ids) for row in kept[step].rows] for step in range(STEPS)]
    rules = (f"method={method}", f"trainer.max_steps={STEPS}", "trainer.temperature=1.3")
    stock, expected = make_trainer(*rules, kind=replayed(said), train_dataset=few_prompts(), verifier=VERIFIER)
    stock.train()
    for ours, theirs in zip(seen.records, expected.records, strict=True):
        assert ours.prompts == theirs.prompts
        assert ours.completions == theirs.completions
        assert torch.equal(ours.reward, theirs.reward)
        assert torch.equal(ours.credit, theirs.credit)
        assert torch.equal(ours.batch.counts, theirs.batch.counts)
        assert {**theirs.metrics, **ours.metrics} == theirs.metrics
    states, _ = trainer.worker.snapshot(STEPS)
    assert states.keys() == stock.states.keys()
    assert method != "hapo" or same_history(states, stock.states)
    assert any(record.metrics.get("hapo/known_frac") for record in seen.records) or method != "hapo"


@pytest.mark.parametrize("truncated", ["as_is", "mask"])
@pytest.mark.parametrize("loss", ["bnpo", "dapo", "grpo", "dr_grpo"])
def test_the_first_gradient_is_that_of_the_synchronous_trainer(tmp_path, make_trainer, kept, loss, truncated):
    """Over four micro-batches of one group each, some of whose rows do not count."""
    method = dataclasses.replace(load_method("hapo"), loss={"loss_type": loss})
    cut = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4, "max_grad_norm": 1e9}
    trainer, seen = make(tmp_path, method, max_steps=1, teaching=Teaching(truncated=truncated), **cut)
    gradients = [gradient_of(trainer)]
    trainer.train()
    said = [[list(row.token_ids) for row in kept[0].rows]]
    rules = ["trainer.max_steps=1", "trainer.temperature=1.3", f"truncated={truncated}", f"trainer.loss_type={loss}"]
    rules += [f"trainer.{name}={value}" for name, value in cut.items()]
    stock, expected = make_trainer(*rules, kind=replayed(said), train_dataset=few_prompts(), verifier=VERIFIER)
    gradients.append(gradient_of(stock))
    stock.train()
    assert torch.equal(seen.records[0].credit, expected.records[0].credit)
    assert bool(seen.records[0].batch.counts.all()) == (truncated == "as_is")
    (ours,), (theirs,) = gradients
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-5)


def gradient_of(trainer) -> list[dict[str, torch.Tensor]]:
    """The gradients of each optimizer step, once it has taken them."""
    found: list[dict[str, torch.Tensor]] = []

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **_):
            found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})

    trainer.add_callback(Keep())
    return found


def test_rows_carry_version_and_log_probs_and_are_never_too_old(tmp_path, kept):
    server = Server()
    trainer, seen = make(tmp_path, server=server, max_staleness=2, max_steps=6)
    pushed = []
    put = trainer.worker.rollout_buffer.put
    trainer.worker.rollout_buffer.put = lambda sample: (pushed.append(sample), put(sample))
    trainer.train()
    assert server.sent == 7, "before the first step, and after each"
    staleness = [line["staleness"] for line in seen.metrics]
    assert staleness[0] == 0
    assert 1 <= max(staleness) <= 2
    assert not any("sample/dropped_stale_total" in line for line in seen.metrics)
    assert [made.version for made in kept.values()] == [step + 1 - old for step, old in enumerate(staleness)]
    assert [sample.group_id for sample in pushed[: 6 * ROWS]] == [n // GROUP for n in range(6 * ROWS)]
    for sample, row in zip(pushed, [row for made in kept.values() for row in made.rows], strict=False):
        own = sample.completion_mask.astype(bool)
        assert sample.input_ids[own].tolist() == row.token_ids
        assert sample.old_log_probs[own] == pytest.approx(row.sampler_logprobs)
        assert row.version == sample.model_version - 1
    first = next(line for line in seen.metrics if line["staleness"] == 0)
    assert first["ratio"] == pytest.approx(1, abs=1e-4)
    assert any(abs(line["ratio"] - 1) > 1e-3 for line in seen.metrics), "older weights need a correction"


def test_a_resumed_run_uses_every_rollout_once_in_the_same_order(tmp_path, kept):
    """Killed behind the checkpoint of step 3, with prompts of the second and third epoch sampled ahead."""
    saves = {"save_strategy": "steps", "max_staleness": 2, "max_steps": 8}
    trainer, seen = make(tmp_path, **saves)
    trainer.add_callback(StopAfter(3))
    trainer.train()
    folder = tmp_path / "checkpoint-3"
    unused = json.loads((folder / UNUSED_FILE).read_text())
    assert [saved["step"] for saved in unused][:1] == [3]
    before = dict(kept)
    kept.clear()
    resumed, again = make(tmp_path, **saves)
    resumed.train(resume_from_checkpoint=str(folder))
    assert sorted(before) == [0, 1, 2]
    assert sorted(kept) == [3, 4, 5, 6, 7]
    for saved in unused:
        made = kept[saved["step"]]
        assert [row.token_ids for row in made.rows] == [row["token_ids"] for row in saved["rows"]]
        assert made.version == saved["version"]
    keys = [key for record in [*seen.records, *again.records] for key in record.batch.prompt_keys]
    assert all(len(set(keys[epoch : epoch + 12])) == 12 for epoch in (0, 12)), "each prompt once an epoch"
    assert max(line["staleness"] for line in again.metrics) <= 2

    method, replay = load_method("hapo"), load_method("hapo").init()
    for record in [*seen.records, *again.records]:
        result, replay = method.apply(record.batch, replay)
        assert torch.equal(result.credit, record.credit)
    assert same_history(replay, resumed.worker.snapshot(8)[0])


def test_a_checkpoint_holds_the_states_of_its_own_step(tmp_path):
    """Not those of the steps that were sampled beyond it."""
    trainer, seen = make(tmp_path, save_strategy="steps", max_staleness=2)
    trainer.train()
    method, states = load_method("hapo"), load_method("hapo").init()
    for step, record in enumerate(seen.records, 1):
        _, states = method.apply(record.batch, states)
        saved, facts = checkpoint.load_state(tmp_path / f"checkpoint-{step}")
        assert facts["step"] == step
        assert same_history(states, saved)


def test_a_checkpoint_of_another_staleness_or_a_damaged_one_is_refused(tmp_path):
    saves = {"save_strategy": "steps", "max_steps": 1}
    make(tmp_path, **saves)[0].train()
    folder = tmp_path / "checkpoint-1"
    with pytest.raises(UserError, match=r"^max_staleness=3, .* with 1: rows that were sampled ahead would be lost"):
        make(tmp_path, max_staleness=3)[0].train(resume_from_checkpoint=str(folder))
    (folder / UNUSED_FILE).write_text('[{"step": 1}]')
    with pytest.raises(UserError, match=UNUSED_FILE):
        make(tmp_path, **saves)[0].train(resume_from_checkpoint=str(folder))


def test_rows_that_do_not_count_have_no_credit(tmp_path, kept):
    trainer, seen = make(tmp_path, "grpo", max_steps=2, teaching=Teaching(truncated="mask", zero_variance="drop"))
    pushed = []
    put = trainer.worker.rollout_buffer.put
    trainer.worker.rollout_buffer.put = lambda sample: (pushed.append(sample), put(sample))
    trainer.train()
    counts = torch.cat([record.batch.counts for record in seen.records]).tolist()
    assert not all(counts)
    assert any(counts)
    for sample, taught in zip(pushed, counts, strict=False):
        assert taught or (sample.advantage == 0 and sample.completion_mask.sum() == 1)
    assert seen.metrics[0]["left_out_frac"] > 0


def test_what_ends_the_worker_ends_the_run_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(RolloutQueueDataset.__init__, "__defaults__", (3, 0.1, None))
    server = Server()
    trainer, _ = make(tmp_path, server=server)
    with torch.no_grad():
        trainer.model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(UserError, match="logits are not finite"):
        trainer.train()


REFUSED = {
    ("hapo", "max_staleness", 0): "max_staleness=0: its loader is a batch ahead; give 1",
    ("hapo", "max_steps", -1): "max_steps=-1: .*; set it",
    ("hapo", "num_generations", 3): "num_generations=3: 16 rows a step make no whole groups",
    ("hapo", "token_budget", 100): "token_budget=100: .*; set 0",
    ("hapo", "eval_strategy", "steps"): "eval_strategy=.*; set no",
    ("e2h", "max_steps", 5): "the curriculum .*: it decides by verdicts that are not there yet",
    ("thinking_budget", "max_steps", 5): "the sampler .*: it asks for tokens in turns",
    ("dot", "max_steps", 5): "the cut OutlierCut: rows are judged once",
    ("decs", "max_steps", 5): "credit by token, as Decs gives it: take one that gives a row one",
    ("pear", "max_steps", 5): "answer_entropy, think_entropy: that takes a forward pass",
    ("length_stages", "max_steps", 5): r"a schedule of trainer\.max_completion_length: ",
    ("cispo", "max_steps", 5): "loss_type=cispo of method cispo: choose bnpo, dapo, grpo or dr_grpo",
    ("gspo", "max_steps", 5): "importance_sampling_level=sequence of method gspo",
}


@pytest.mark.parametrize("asked", REFUSED)
def test_what_has_no_place_there_is_refused_in_one_line(tmp_path, asked):
    name, field, value = asked
    with pytest.raises(UserError, match=REFUSED[asked]) as refused:
        server_config(config(tmp_path, **{field: value}), load_method(name), Teaching())
    assert re.match(
        r"^TRL's asynchronous trainer does not go with .*, or use ConciseTrainer \(engine=sync\)$", str(refused.value)
    )
    assert "\n" not in str(refused.value)


def test_other_refusals(tmp_path):
    with pytest.raises(UserError, match=r"zero_variance=refill: .*; use drop"):
        server_config(config(tmp_path), load_method("hapo"), Teaching(zero_variance="refill"))
    with pytest.raises(UserError, match="reward_funcs has no place in ServerTrainer: the verifier is the reward"):
        make(tmp_path, reward_funcs=[])
    with pytest.raises(UserError, match=r"train_dataset has 12 prompts, a step takes 16"):
        make(tmp_path, per_device_train_batch_size=64)


def test_credit_by_token_of_ones_own_is_refused_before_the_first_update(tmp_path, monkeypatch):
    monkeypatch.setattr(RolloutQueueDataset.__init__, "__defaults__", (3, 0.1, None))
    monkeypatch.setattr(Decs, "by_token", False)
    trainer, seen = make(tmp_path, "decs")
    with pytest.raises(UserError, match="does not go with method decs, which gives each token a credit of its own"):
        trainer.train()
    assert not seen.metrics


def test_the_recipe_holds_where_args_have_trls_default(tmp_path):
    args = server_config(config(tmp_path), load_method("dapo"), Teaching())
    assert (args.epsilon_high, args.token_budget) == (0.28, 0)
    args = server_config(config(tmp_path, epsilon_high=0.3), load_method("dapo"), Teaching())
    assert args.epsilon_high == 0.3


class Replies(BaseHTTPRequestHandler):
    """What a vLLM server says: the prompt backwards; once an error of its own, and never to an empty prompt."""

    asked: ClassVar[list[dict]] = []
    failures: ClassVar[list[int]] = []

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(asked)
        code = self.failures.pop() if self.failures else 200 if asked["prompt"] else 400
        ids = asked["prompt"][::-1]
        choice = {"token_ids": ids, "logprobs": {"token_logprobs": [-0.5] * len(ids)}}
        if asked["model"] == "mute":
            choice = {"text": "hello"}
        body = json.dumps({"choices": [choice]}).encode() if code == 200 else b"no such\nprompt"
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None: ...


@pytest.fixture
def url():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Replies)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def test_completions_come_from_a_server_in_order(tmp_path, url, monkeypatch):
    monkeypatch.setattr(vllm_completions, "FIRST_WAIT", 0.01)
    args = config(tmp_path, vllm_server_base_url=url, top_p=0.9, min_p=0.1)
    complete = VLLMCompletions.of(args, "policy")
    Replies.asked.clear()
    Replies.failures[:] = [503]
    requests = [TokenRequest((n, n + 1), limit=7, seed=n) for n in range(20)]
    assert complete(requests) == [Sampled((n + 1, n), (-0.5, -0.5)) for n in range(20)]
    assert len(Replies.asked) == 21
    asked = Replies.asked[-1]
    assert (asked["temperature"], asked["top_p"], asked["min_p"], asked["max_tokens"]) == (1.3, 0.9, 0.1, 7)
    with pytest.raises(UserError, match=r"^http://127.* refuses a request \(400\): no such prompt$"):
        complete([TokenRequest((), limit=1)])
    with pytest.raises(UserError, match="answers without token_ids and log-probs: serve with vLLM"):
        dataclasses.replace(complete, model="mute")([TokenRequest((1,), limit=1)])
    with pytest.raises(UserError, match=r"did not answer 5 times \(.*\): see whether vllm serve runs there"):
        dataclasses.replace(complete, url="http://127.0.0.1:9")([TokenRequest((1,), limit=1)])


@pytest.mark.parametrize("window", [None, 3])
def test_tree_attention_is_that_of_each_row_alone(window):
    """Two rows that share three tokens, two heads that share one key."""
    rng = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, heads, 8, 4, generator=rng) for heads in (2, 1, 1))
    out, _ = tree_attention(
        None, query, key, value, None, tree_kv_index=torch.tensor([0, 1, 2, 0, 1, 2, 3, 4, 0, 1, 2, 5, 6, 7]),
        tree_cu_seqlens_q=torch.tensor([0, 3, 5, 8]), tree_cu_seqlens_k=torch.tensor([0, 3, 8, 14]),
        sliding_window=window,
    )  # fmt: skip
    for row in ([0, 1, 2, 3, 4], [0, 1, 2, 5, 6, 7]):
        own = query[:, :, row] @ key[:, :, row].transpose(2, 3) / 2
        places = torch.arange(len(row))
        seen = places[:, None] >= places
        seen &= places[:, None] - places < (window or len(row))
        expected = own.masked_fill(~seen, -torch.inf).softmax(-1) @ value[:, :, row]
        torch.testing.assert_close(out[:, row].transpose(1, 2), expected)


def test_two_ranks_learn_what_one_does(tmp_path):
    """From the same rows the same gradient; both hold the same weights, also after a resume."""
    found = {}
    for ranks in (1, 2):
        out = tmp_path / str(ranks)
        out.mkdir()
        script = [str(ROOT / "tests" / "engine" / "async_ranks.py"), str(out), str(ROWS // ranks)]
        command = [*accelerate_launch(), "--num_processes", str(ranks), *script]
        run_to_end(command, 240)
        found[ranks] = [torch.load(path, weights_only=True) for path in sorted(out.glob("rank*.pt"))]
    (one,), (first, second) = found[1], found[2]
    assert one["steps"][0][0] == first["steps"][0][0]
    assert all(torch.equal(a, b) for a, b in zip(one["steps"][0][1:], first["steps"][0][1:], strict=True))
    assert not second["steps"], "the first rank has the worker"
    for name, gradient in one["gradients"][0].items():
        torch.testing.assert_close(first["gradients"][0][name], gradient, rtol=1e-3, atol=1e-5)
    assert all(torch.equal(weights, second["weights"][name]) for name, weights in first["weights"].items())
    run_to_end([*command, str(tmp_path / "2" / "run" / "checkpoint-1")], 240)
    first, second = (torch.load(tmp_path / "2" / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert len(first["steps"]) == 2
    assert all(torch.equal(weights, second["weights"][name]) for name, weights in first["weights"].items())


def test_the_example_of_the_page_runs(tmp_path, monkeypatch):
    server = Server()
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "launch.md").read_text()
    (source,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    source = source.replace("Qwen/Qwen3-1.7B", "embedded:tiny")
    source = source.replace(
        "max_steps=2", "max_steps=2, max_completion_length=48, use_cpu=True, bf16=False, report_to='none'"
    )
    own = ServerTrainer.__init__
    given = {"generate": server, "weight_transfer": server}
    monkeypatch.setattr(ServerTrainer, "__init__", lambda self, *a, **k: own(self, *a, **k, **given))
    found: dict = {}
    exec(source, found)
    assert found["trainer"].state.global_step == 2
