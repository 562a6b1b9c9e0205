"""The warm-up and the checkpoint that it made: format, tokenizer, start point, repeatability."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import asdict
from itertools import islice

import pytest
import torch
from safetensors.torch import load_file

from concise_rl.assets import REASONERS, TINY
from concise_rl.errors import UserError
from concise_rl.testbeds import ChainSum
from concise_rl.testbeds.chain_sum import Overthinking, answer, oracle_completion, oracle_tokens, split_of
from concise_rl.testbeds.teacher import RECHECK
from concise_rl.testbeds.warmup import WarmupConfig, build_tokenizer, earlier_record, measure, run_warmup
from concise_rl.testbeds.warmups import WARMUPS, make, run_stages
from concise_rl.verifiers import Exact


def small_config(**changes) -> WarmupConfig:
    fields = {
        "data": ChainSum(test_size=8),
        "hidden_size": 16,
        "layers": 1,
        "heads": 2,
        "intermediate_size": 16,
        "steps": 6,
        "batch_size": 4,
        "warmup_steps": 2,
        "max_new_tokens": 8,
    }
    return WarmupConfig(**{**fields, **changes})


def test_traces_are_right_never_from_the_test_side_and_recheck_as_often_as_asked():
    teacher = Overthinking(recheck_weights=[1, 3], plain_share=0.5)
    traces = list(islice(teacher.traces(2000, random.Random(0)), 2000))
    for question, completion in traces:
        assert split_of(question) == "train"
        assert Exact()(completion, answer(question)).correct
    assert all(completion == oracle_completion(question) for question, completion in traces[:1000])
    counts = Counter(completion.count(RECHECK) for _, completion in traces[1000:])
    assert set(counts) == {0, 1}
    assert 0.70 < counts[1] / 1000 < 0.80


def test_tokenizer_has_the_tags_as_tokens_and_decodes_to_what_it_read(tmp_path):
    from transformers import AutoTokenizer

    build_tokenizer().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.chat_template is None
    assert len({tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}) == 3
    text = " 7a+4b-3=<think>7a+4=11b;wait,\n  Why  not? </think>8 "
    ids = tokenizer.encode(text)
    assert len(ids) == len(text.replace("<think>", "T").replace("</think>", "T"))
    assert ids.count(tokenizer.convert_tokens_to_ids("<think>")) == 1
    assert tokenizer.decode(ids) == text
    padded = [tokenizer.pad_token_id, *ids, tokenizer.eos_token_id]
    assert tokenizer.decode(padded, skip_special_tokens=True) == text
    assert tokenizer.decode(padded) == f"<pad>{text}<eos>"
    assert tokenizer.encode("é") == [tokenizer.unk_token_id]


def test_oracle_tokens_are_the_tokenizers():
    tokenizer = build_tokenizer()
    for prompt in ChainSum(test_size=50).load("test"):
        question = prompt.messages[0]["content"]
        assert len(tokenizer.encode(oracle_completion(question))) + 1 == prompt.columns["oracle_tokens"]
        assert oracle_tokens(question) == prompt.columns["oracle_tokens"]


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(tmp_path):
    seen = []
    metrics = [
        run_warmup(small_config(), tmp_path / "a", on_step=lambda step, loss: seen.append((step, loss))),
        run_warmup(small_config(), tmp_path / "b"),
    ]
    run_warmup(small_config(seed=1), tmp_path / "c")
    a, b, c = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)
    assert metrics[0] == metrics[1]
    assert [step for step, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert json.loads((tmp_path / "a" / "warmup.json").read_text())["config"]["hidden_size"] == 16


def test_it_learns_and_leaves_the_callers_random_numbers_alone(tmp_path):
    losses = []
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    config = small_config(steps=120, batch_size=16, learning_rate=1e-2, hidden_size=32, intermediate_size=64)
    run_warmup(config, tmp_path, on_step=lambda _, loss: losses.append(loss))
    assert torch.equal(torch.rand(3), expected)
    # Character frequencies alone bring the loss down to about 2.8 nats a token: less needs the context.
    assert sum(losses[-20:]) / 20 < 2.3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 0}, "steps=0"),
        ({"hidden_size": 18, "heads": 2}, "hidden_size=18"),
        ({"learning_rate": 0.0}, "learning_rate=0"),
    ],
)
def test_bad_fields_are_refused_by_name(fields, message):
    with pytest.raises(UserError, match=message):
        WarmupConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "message"), [({"recheck_weights": [0.0]}, "recheck_weights"), ({"plain_share": 1.5}, "plain_share=1.5")]
)
def test_bad_habits_are_refused_by_name(fields, message):
    with pytest.raises(UserError, match=message):
        Overthinking(**fields)


def test_an_output_folder_that_cannot_be_made_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        run_warmup(small_config(), tmp_path / "file" / "out", on_step=lambda *_: pytest.fail("it trained"))


@pytest.fixture(scope="module")
def shipped():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(TINY), AutoTokenizer.from_pretrained(TINY)


@pytest.mark.parametrize("folder", REASONERS.values(), ids=str)
def test_a_shipped_checkpoint_is_small(folder):
    assert sum(f.stat().st_size for f in folder.iterdir()) <= 4 * 2**20


def test_the_shipped_checkpoint_is_complete(shipped):
    model, tokenizer = shipped
    assert 0.8e6 < model.num_parameters() < 1e6
    assert model.dtype == torch.float32
    assert tokenizer.get_vocab() == build_tokenizer().get_vocab()
    generation = model.generation_config
    assert (generation.eos_token_id, generation.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert not generation.to_diff_dict().keys() & {"temperature", "top_k", "top_p", "repetition_penalty", "max_length"}


def test_the_shipped_checkpoint_starts_where_its_record_says(shipped):
    """Record: 512 problems inside 88-96 % and twice the oracle. Sample: 128 of them, four standard errors of slack."""
    record = json.loads((TINY / "warmup.json").read_text())
    assert 0.88 <= record["metrics"]["accuracy"] <= 0.96
    assert record["metrics"]["tokens_over_oracle"] >= 2
    model, tokenizer = shipped
    torch.manual_seed(0)
    metrics = measure(model, tokenizer, ChainSum(test_size=128).load("test"), max_new_tokens=320)
    assert 0.80 <= metrics["accuracy"] <= 1.0
    assert 1.7 <= metrics["tokens_over_oracle"] <= 2.9
    assert abs(metrics["accuracy"] - record["metrics"]["accuracy"]) < 0.1


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("tiny", "chain_sum"),
        ("tiny_running_total", "running_total"),
        ("tiny_which_sum", "which_sum"),
        ("tiny_efforts", "efforts"),
    ],
)
def test_each_shipped_checkpoint_is_made_by_its_stages(name, task):
    """All fields that make weights, stage by stage; `data` also sizes the splits, of which a teacher draws freely."""

    def making(config):
        return {name: value for name, value in config.items() if name not in ("data", "start")}

    recorded = json.loads((REASONERS[name] / "warmup.json").read_text())["config"]
    for stage in reversed(WARMUPS[task]):
        assert making(recorded) == making(json.loads(json.dumps(asdict(stage))))
        recorded = recorded["start"]
    # The first stage starts from nothing, or from a reasoner that the package ships.
    start = WARMUPS[task][0].start
    assert recorded == (earlier_record(start) if start else "")


def test_the_first_stage_alone_decides_what_a_warm_up_starts_from(tmp_path):
    stages = [small_config(), small_config(steps=1, learning_rate=1e-6, seed=1)]
    metrics = run_stages(stages, tmp_path / "both", seed=3)
    record = json.loads((tmp_path / "both" / "warmup.json").read_text())
    assert record["metrics"] == metrics
    assert (record["config"]["seed"], record["config"]["start"]["seed"]) == (4, 3)
    with pytest.raises(UserError, match="task=chain has no warm-up; choose from chain_sum"):
        make("chain", tmp_path)


def test_short_completions_weigh_their_share_only_where_lengths_are_mixed():
    """Steps of like length come apart by length; of mixed lengths they do not."""
    from concise_rl.testbeds.warmup import _batches

    for like_length, spread_is_small in ((True, True), (False, False)):
        config = small_config(like_length=like_length, batch_size=8)
        traces = config.teacher.traces(0, random.Random(0))
        batches = islice(_batches(build_tokenizer(), traces, config, random.Random(0)), 16)
        means = [float((labels >= 0).sum(1).float().std()) for _, labels in batches]
        assert (sum(means) / len(means) < 10) == spread_is_small


def test_a_second_stage_goes_on_from_the_first(tmp_path):
    run_warmup(small_config(), tmp_path / "first")
    run_warmup(small_config(steps=1, learning_rate=1e-6, start=str(tmp_path / "first")), tmp_path / "second")
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)
    record = json.loads((tmp_path / "second" / "warmup.json").read_text())
    assert record["config"]["start"]["steps"] == 6
    with pytest.raises(UserError, match="holds no warm-up"):
        run_warmup(small_config(start=str(tmp_path)), tmp_path / "third")
