"""Every field of `trl.GRPOConfig` has an effect, is refused, or is listed with the reason why it has none."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from concise_rl.engine.fields import EFFECTIVE, WITHOUT_EFFECT, ConciseConfig, LeanConfig
from concise_rl.errors import UserError

PAGE = Path(__file__).parents[2] / "docs" / "trl_fields.md"
FIELDS = {field.name for field in dataclasses.fields(ConciseConfig)}
READ = {name: reader for reader, names in EFFECTIVE.items() for name in names.split()}
OTHER_VALUES = {
    "label_smoothing_factor": 0.1,
    "train_sampling_strategy": "sequential",
    "mask_truncated_completions": True,
    "scale_rewards": "none",
    "multi_objective_aggregation": "normalize_then_sum",
    "reward_weights": [0.5],
    "resume_from_checkpoint": "runs/x/checkpoint-8",
    "load_best_model_at_end": True,
}


def config(tmp_path, kind=ConciseConfig, **fields):
    given = {"per_device_train_batch_size": 8, "use_cpu": True, "bf16": False, "report_to": "none"}
    return kind(output_dir=str(tmp_path), **given | fields)


def test_every_field_has_one_place():
    places = [*READ, *WITHOUT_EFFECT, *ConciseConfig.refused]
    assert sorted(places) == sorted(FIELDS)


@pytest.mark.parametrize("name", ConciseConfig.refused)
def test_a_refused_field_names_itself_its_value_and_a_remedy(tmp_path, name):
    with pytest.raises(UserError, match=rf"^trainer\.{name}=.+: .+[;,] .+"):
        config(tmp_path, **{name: OTHER_VALUES[name]})


@pytest.mark.parametrize("name", sorted(ConciseConfig.refused.keys() - LeanConfig.refused.keys()))
def test_with_trls_own_rewards_they_have_their_effect(tmp_path, name):
    fields = {name: OTHER_VALUES[name]}
    if name == "load_best_model_at_end":
        fields |= {"eval_strategy": "steps", "eval_steps": 4, "save_steps": 4}
    assert getattr(config(tmp_path, LeanConfig, **fields), name) == OTHER_VALUES[name]


def test_cispo_without_its_bound_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"loss_type=cispo .* at epsilon=0\.2: set trainer\.epsilon_high, 5 is usual"):
        config(tmp_path, loss_type="cispo")
    assert config(tmp_path, loss_type="cispo", epsilon_high=5.0).epsilon_high == 5.0


def test_epochs_beside_steps_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"num_train_epochs=2 has no effect beside max_steps=10: .*max_steps=-1"):
        config(tmp_path, max_steps=10, num_train_epochs=2)
    assert config(tmp_path, num_train_epochs=2).num_train_epochs == 2
    assert config(tmp_path, max_steps=10).max_steps == 10


def test_the_page_shows_the_tables():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", PAGE.read_text(), flags=re.MULTILINE))
    expected = {name: f"effective: {reader}" for name, reader in READ.items()}
    expected |= {name: f"without effect: {reason}" for name, reason in WITHOUT_EFFECT.items()}
    expected |= {name: f"refused: {remedy}" for name, remedy in ConciseConfig.refused.items()}
    assert rows == expected
