"""What all data sources share: registration, configuration, rendering, and references that verify."""

from __future__ import annotations

from dataclasses import is_dataclass
from types import SimpleNamespace

import pytest

from concise_rl.data import DATA_SOURCES, Prompt, check_references, render
from concise_rl.errors import DataError
from concise_rl.testbeds import ChainSum
from concise_rl.verifiers import VERIFIERS
from concise_rl.verifiers.base import Verdict

REQUIRED = {"hub": {"name": "a/b"}, "local": {"path": "a.jsonl"}}


@pytest.mark.parametrize("name", sorted(DATA_SOURCES))
def test_a_source_is_a_structured_config_with_a_known_verifier(name):
    from omegaconf import OmegaConf

    source = DATA_SOURCES[name]
    assert is_dataclass(source)
    config = OmegaConf.create({**OmegaConf.structured(source(**REQUIRED.get(name, {})))})
    rebuilt = source(**OmegaConf.to_container(config))
    assert rebuilt == source(**REQUIRED.get(name, {}))
    assert rebuilt.verifier in VERIFIERS


def test_render_leaves_messages_to_a_chat_template_and_joins_them_otherwise():
    prompt = Prompt.of("1+1?", "2")
    chat, plain = SimpleNamespace(chat_template="{{ messages }}"), SimpleNamespace(chat_template=None)
    user = {"role": "user", "content": "1+1?"}
    assert render(prompt, chat) == [user]
    assert render(prompt, chat, "Be brief.") == [{"role": "system", "content": "Be brief."}, user]
    assert render(prompt, plain) == "1+1?"
    assert render(prompt, plain, "Be brief.") == "Be brief.\n\n1+1?"
    assert prompt.messages == (user,)


def verify_digits(pairs):
    return [
        Verdict.of(completion == f"<{reference}>") if reference.isdigit() else Verdict.unscorable("no digits")
        for completion, reference in pairs
    ]


def test_references_that_verify_pass_and_are_verified_once():
    seen = []

    def verify(pairs):
        seen.extend(pairs)
        return verify_digits(pairs)

    prompts = [Prompt.of("a", "1"), Prompt.of("b", "2"), Prompt.of("c", "1")]
    check_references(prompts, verify, wrap=lambda reference: f"<{reference}>")
    assert seen == [("<1>", "1"), ("<2>", "2")]


def test_a_reference_that_does_not_verify_is_named_with_its_row():
    prompts = [Prompt.of("a", "1"), Prompt.of("b", "one"), Prompt.of("c", "two"), Prompt.of("d", "two")]
    with pytest.raises(DataError, match=rf"'b' \(id {prompts[1].id}\): reference 'one' .*\(no digits\); 2 of 3"):
        check_references(prompts, verify_digits, wrap=lambda reference: f"<{reference}>")
    with pytest.raises(DataError, match=r"'a' .*reference '1' does not verify"):
        check_references(prompts[:1], verify_digits)


def test_the_embedded_references_verify():
    verifier = VERIFIERS[ChainSum().verifier]()
    check_references(ChainSum().load("test"), lambda pairs: [verifier(*pair) for pair in pairs])
