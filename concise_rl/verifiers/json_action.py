"""Hierarchical rewards for JSON actions on a web page (Shop-R1)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from concise_rl.verifiers.answer import answer_text
from concise_rl.verifiers.base import Verdict
from concise_rl.verifiers.pool import BatchVerifier

FORMAT_REWARD = 0.5
TYPE_REWARD = 0.3
CLICK_NAME_REWARD = 0.2
SUBMIT_FIELD_REWARD = 0.1
SHORT_WEIGHT = 0.1
"""Weight of `short_similarity` in the reward."""

MAX_FIELD_CHARS = 1000
"""ROUGE-L costs the product of the two lengths: what a field holds beyond this is not compared."""

_FIELDS = {"click": ("name",), "type_and_submit": ("name", "text"), "terminate": ()}
_PARTS = ("format", "type", "name_present", "text_present", "short_similarity", "long_similarity")


@dataclass
class JsonAction(BatchVerifier):
    """Shop-R1's hierarchical reward (arXiv 2507.17842, reward table), its difficulty-aware scaling left to `Dars`.

    The completion is `{"rationale": "...", "action": {"type": ..., "name": ..., "text": ...}}` with type `click`
    (name), `type_and_submit` (name, text) or `terminate`; the reference is the JSON of the gold action.

    `Verdict.parts` always has these six keys:

    =================  ====================  ==================================================================
    part               values                meaning
    =================  ====================  ==================================================================
    format             0, 0.5                a valid JSON object with a string `rationale` and an object `action`
    type               0, 0.3                the action type is the gold's; if not, all that follows is 0
    name_present       0, 0.2 (click),       the name is not blank
                       0.1 (type_and_submit)
    text_present       0, 0.1                type_and_submit: the text is not blank
    short_similarity   [0, 1]                type_and_submit: ROUGE-L of the name, unweighted
    long_similarity    [0, 1]                ROUGE-L of the field that DARS values, unweighted:
                                             the name of a click, the text of a type_and_submit
    =================  ====================  ==================================================================

        reward = format + type + name_present + text_present + 0.1 * short_similarity + long_similarity

    which is the paper's sum at a scaling factor of 1 and a similarity threshold of 0. `Dars(factor, threshold)` needs
    the two similarities raw: with t(s) = s where s passes the threshold and 0 elsewhere it returns
    `reward + 0.1 * (t(short) - short) + factor * t(long) - long`.

    `correct` is an exact match of the action: type and each field of that type, white space normalised.

    Where the paper is silent, this is the reading: ROUGE-L is the F1 of the `rouge-score` package without stemming;
    equal fields score 1 even where its tokenizer, which knows a-z and 0-9 alone, finds no token; fields of a wrong
    type earn nothing; JSON is strict (no Markdown fence, no text around it); an unparseable completion earns 0; fields
    that the type does not have are ignored; similarity looks at the first `MAX_FIELD_CHARS` characters of a field. A
    reference that is not an action of a known type with its fields is unscorable.
    """

    hostile_input_safe: ClassVar[bool] = True

    def __call__(self, completion: str, reference: str) -> Verdict:
        gold = _load_object(reference)
        if gold is None or not _is_gold_action(gold):
            return Verdict.unscorable(f"the reference {reference[:60]!r} is not a JSON action of a known type")
        output = _load_object(answer_text(completion))
        parts = dict.fromkeys(_PARTS, 0.0)
        if output is None or not isinstance(output.get("rationale"), str) or not isinstance(output.get("action"), dict):
            return Verdict(False, parts=parts, reason="not a JSON object with rationale and action")
        parts["format"] = FORMAT_REWARD
        action, kind = output["action"], gold["type"]
        if action.get("type") != kind:
            return Verdict(False, reward=_total(parts), parts=parts, reason=f"type is not {kind}")
        parts["type"] = TYPE_REWARD
        fields = _FIELDS[kind]
        for field in fields:
            if _field(action, field):
                parts[f"{field}_present"] = CLICK_NAME_REWARD if kind == "click" else SUBMIT_FIELD_REWARD
        if kind == "type_and_submit":
            parts["short_similarity"] = _similarity(_field(gold, "name"), _field(action, "name"))
        if fields:
            parts["long_similarity"] = _similarity(_field(gold, fields[-1]), _field(action, fields[-1]))
        correct = all(_field(action, field) == _field(gold, field) for field in fields)
        return Verdict(correct, reward=_total(parts), parts=parts)

    def wrap_reference(self, reference: str) -> str:
        """A completion that must verify: the gold action with an empty rationale."""
        gold = _load_object(reference)
        return reference if gold is None else json.dumps({"rationale": "", "action": gold})


def _total(parts: dict[str, float]) -> float:
    return sum(SHORT_WEIGHT * value if name == "short_similarity" else value for name, value in parts.items())


def _load_object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_gold_action(gold: dict[str, Any]) -> bool:
    kind = gold.get("type")
    return isinstance(kind, str) and kind in _FIELDS and all(_field(gold, field) for field in _FIELDS[kind])


def _field(action: dict[str, Any], field: str) -> str:
    value = action.get(field)
    return " ".join(value.split()) if isinstance(value, str) else ""


def _similarity(gold: str, predicted: str) -> float:
    if gold == predicted:
        return 1.0
    return float(_scorer().score(gold[:MAX_FIELD_CHARS], predicted[:MAX_FIELD_CHARS])["rougeL"].fmeasure)


@lru_cache(maxsize=1)
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"])
