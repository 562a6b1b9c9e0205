"""The model card, README.md of a trained model: data, method, settings, versions, before and after, the command."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from concise_rl.errors import printable
from concise_rl.files import replace_text
from concise_rl.reporting.run_record import hardware_line
from concise_rl.reporting.summary import Summary, headline, summary_markdown

CARD_FILE = "README.md"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

_SHOWN = ("max_steps", "num_train_epochs", "learning_rate", "lr_scheduler_type", "num_generations",
          "per_device_train_batch_size", "gradient_accumulation_steps", "max_completion_length", "temperature", "beta",
          "epsilon", "epsilon_high", "loss_type", "seed")  # fmt: skip


def write_model_card(
    folder: Path,
    columns: Mapping[str, Summary],
    difference: Summary | None,
    config: Mapping[str, Any],
    record: Mapping[str, Any],
    *,
    steps: int,
) -> None:
    """Write the card into `folder/model`, where there is one.

    Args:
        columns, difference: see `concise_rl.reporting.html.write_report`.
        config: the resolved configuration.
        record: see `concise_rl.reporting.run_record.record_start`.
        steps: optimizer steps taken.

    Raises:
        UserError: the card cannot be written.
    """
    if (folder / "model").is_dir():
        text = model_card(columns, difference, config, record, steps=steps)
        replace_text(folder / "model" / CARD_FILE, text)


def model_card(
    columns: Mapping[str, Summary],
    difference: Summary | None,
    config: Mapping[str, Any],
    record: Mapping[str, Any],
    *,
    steps: int,
) -> str:
    """The card's text: metadata, then Markdown. Paths of this machine are named by their last part alone."""
    from huggingface_hub import ModelCard, ModelCardData

    tuned = "method" not in config
    method, model, data = config["recipe"] if tuned else config["method"]["name"], config["model"], config["data"]
    adapter = config.get("peft") is not None
    metadata = ModelCardData(
        base_model=model["path"] if _on_hub(model["path"]) else None,
        datasets=[data["name"]] if _on_hub(str(data.get("name"))) else None,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["concise-rl", "trl", *([] if tuned else ["grpo"]), method],
        model_name=record["name"],
    )
    parts = [
        f"# {record['name']}\n",
        f"{_named(model['path'])}, trained by concise_rl with the {'recipe' if tuned else 'method'} `{method}` "
        "to answer in fewer tokens.\n",
        *_results(columns, difference, config),
        f"## Training\n\n{_rows({'run': record['title']} | _settings(config, steps))}",
        *([] if tuned else [f"### Method\n\n```yaml\n{_yaml(_components(config))}```\n"]),
        *_origin(record),
    ]
    text = printable("\n".join(parts))
    return str(ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{text}"))


def _results(columns: Mapping[str, Summary], difference: Summary | None, config: Mapping[str, Any]) -> list[str]:
    if not columns:
        return ["## Result\n\nNot evaluated: the run had `evaluation.problems=0`.\n"]
    said = f"\n**{headline(difference)}**\n" if difference else ""
    options = config["evaluation"]
    samples = f"{options['samples']} completion{'s' * (options['samples'] > 1)}"
    how = (
        f"Split `{options['split']}` of the data, temperature {options['temperature']:g}, "
        f"at most {options['max_new_tokens']} tokens, {samples} a problem. "
        "[...] is the 95 % confidence interval, problems resampled; the change is paired by problem."
    )
    return [f"## Result\n\n{summary_markdown(columns, difference)}{said}\n{how}\n"]


def _settings(config: Mapping[str, Any], steps: int) -> dict[str, Any]:
    node = "trainer" if "method" in config else "tuning"
    trainer = config[node]
    data = {name: _named(value) if name == "path" else value for name, value in config["data"].items()}
    named = {"steps taken": steps, "model": _named(config["model"]["path"])}
    named |= {f"data.{name}": value for name, value in data.items() if value not in (None, "", [], {})}
    named |= {f"{node}.{name}": trainer[name] for name in _SHOWN if trainer.get(name) is not None}
    named |= {"rows": _named(config["rows"])} if "rows" in config else {}
    if config.get("peft"):
        named |= {f"peft.{name}": value for name, value in config["peft"].items() if value is not None}
    return named


def _components(config: Mapping[str, Any]) -> dict[str, Any]:
    """The slots of the method, each component with its fields."""
    slots = {slot: entry for slot, entry in config["method"].items() if slot != "name" and entry not in (None, [], {})}
    kinds = ("edit", "curriculum", "sampler", "cut", "filter", "shaper", "advantage")
    fields = {f"{kind}.{name}": values for kind in kinds for name, values in (config.get(kind) or {}).items() if values}
    return slots | fields


def _origin(record: Mapping[str, Any]) -> list[str]:
    start = record["starts"][-1]
    versions = dict(start["versions"])
    if start["commit"]:
        versions["concise-rl commit"] = start["commit"]
    again = len(record["starts"]) - 1
    resumed = f"\nResumed {again} time{'s' * (again > 1)}; this is the command of the last start.\n" if again else ""
    command = " ".join(start["command"].split("\n")).replace(str(Path.home()), "~")
    return [
        f"### Command\n\n```bash\n{command}\n```\n{resumed}",
        f"### Versions and machine\n\n{_rows(versions | {'machine': hardware_line(start['hardware'])})}",
    ]


def _rows(values: Mapping[str, Any]) -> str:
    """A table of names and values, each value as code."""
    lines = [f"| {name} | `{_cell(value)}` |\n" for name, value in values.items()]
    return "| | |\n| --- | --- |\n" + "".join(lines)


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return " ".join(text.split()).replace("`", "'").replace("|", "\\|")


def _yaml(values: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True).replace("```", "'''")


def _on_hub(path: str) -> bool:
    return bool(_HUB_ID.fullmatch(path)) and not Path(path).exists()


def _named(path: Any) -> str:
    """A hub id as it is; of a path on this machine the last two parts."""
    text = str(path)
    return text if _on_hub(text) or "/" not in text else "/".join(text.rstrip("/").split("/")[-2:])
