"""Shop-R1's reward table (arXiv 2507.17842), part by part."""

import json

import pytest

from concise_rl.verifiers import JsonAction
from concise_rl.verifiers.json_action import SHORT_WEIGHT

CLICK = {"type": "click", "name": "add to cart"}
SUBMIT = {"type": "type_and_submit", "name": "search box", "text": "red running shoes"}
TERMINATE = {"type": "terminate"}


def judge(action, gold, **others):
    return JsonAction()(json.dumps({"rationale": "because", "action": action} | others), json.dumps(gold))


@pytest.mark.parametrize(
    ("action", "gold", "parts", "reward"),
    [
        (CLICK, CLICK, (0.5, 0.3, 0.2, 0.0, 0.0, 1.0), 2.0),
        # "add cart" v "add to cart": LCS 2, precision 1, recall 2/3, F1 0.8
        (CLICK | {"name": "add cart"}, CLICK, (0.5, 0.3, 0.2, 0.0, 0.0, 0.8), 1.8),
        ({"type": "click", "name": " "}, CLICK, (0.5, 0.3, 0.0, 0.0, 0.0, 0.0), 0.8),
        (SUBMIT, SUBMIT, (0.5, 0.3, 0.1, 0.1, 1.0, 1.0), 2.1),
        # name "box": F1 2/3; text "red shoes": F1 0.8
        (
            SUBMIT | {"name": "box", "text": "red shoes"},
            SUBMIT,
            (0.5, 0.3, 0.1, 0.1, 2 / 3, 0.8),
            1.0 + 0.1 * 2 / 3 + 0.8,
        ),
        (TERMINATE, TERMINATE, (0.5, 0.3, 0.0, 0.0, 0.0, 0.0), 0.8),
        (CLICK, SUBMIT, (0.5, 0.0, 0.0, 0.0, 0.0, 0.0), 0.5),
        ({}, CLICK, (0.5, 0.0, 0.0, 0.0, 0.0, 0.0), 0.5),
        ("click", CLICK, (0.0,) * 6, 0.0),
    ],
)
def test_the_reward_table(action, gold, parts, reward):
    verdict = judge(action, gold)
    names = ("format", "type", "name_present", "text_present", "short_similarity", "long_similarity")
    assert dict(verdict.parts) == pytest.approx(dict(zip(names, parts, strict=True)))
    assert verdict.reward == pytest.approx(reward)
    weights = {"short_similarity": SHORT_WEIGHT}
    assert verdict.reward == pytest.approx(sum(weights.get(k, 1.0) * v for k, v in verdict.parts.items()))
    assert verdict.correct == (action == gold)


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "[]",
        '{"action": {"type": "terminate"}}',
        '{"rationale": 3, "action": {"type": "terminate"}}',
        '```json\n{"rationale": "", "action": {"type": "terminate"}}\n```',
        '{"rationale": "", "action": {"type": "terminate"}} done',
        '{"rationale": "", "action": ' + "9" * 5000 + "}",
        "[" * 100_000,
    ],
)
def test_what_is_no_action_earns_nothing(completion):
    verdict = JsonAction()(completion, json.dumps(TERMINATE))
    assert (verdict.scorable, verdict.reward, verdict.correct) == (True, 0.0, False)
    assert len(verdict.parts) == 6


def test_equal_names_are_similar_in_every_script():
    gold = {"type": "click", "name": "加入购物车"}
    assert judge(gold, gold).parts["long_similarity"] == 1.0


@pytest.mark.parametrize("gold", ["", "3", "{}", '{"type": "hover"}', '{"type": "click"}', '{"type": ["click"]}'])
def test_a_gold_action_that_is_none_is_unscorable(gold):
    assert not JsonAction()("{}", gold).scorable
