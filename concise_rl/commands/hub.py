"""The trained model to the Hugging Face hub, once its run is over: `trainer.push_to_hub=true`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from concise_rl.errors import UserError


def check_push(trainer: Mapping[str, Any]) -> None:
    """Refuse what a push at the end of a run would ignore.

    Raises:
        UserError: names the field.
    """
    if trainer.get("hub_strategy") not in (None, "end"):
        raise UserError(
            f"trainer.hub_strategy={trainer['hub_strategy']}: a run pushes its trained model once, at the end; "
            "leave it out"
        )
    named = [name for name in ("hub_model_id", "hub_private_repo", "hub_revision") if trainer.get(name) is not None]
    if named and not trainer.get("push_to_hub"):
        raise UserError(f"trainer.{named[0]} has no effect without trainer.push_to_hub=true: leave it out, or set both")


def push(folder: Path, trainer: Mapping[str, Any], tell: Callable[[str], None]) -> None:
    """Upload `folder/model` with its card as one commit; the repository is made if absent.

    Args:
        folder: the run folder; its name is the repository's where `hub_model_id` names none.
        trainer: `hub_model_id`, `hub_private_repo`, `hub_revision`, `hub_token`.

    Raises:
        UserError: the hub refuses or does not answer; the model stays where it is, and the message says how to go on.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api, model = HfApi(token=trainer.get("hub_token")), folder / "model"
    name, revision = trainer.get("hub_model_id") or folder.resolve().name, trainer.get("hub_revision")
    try:
        repository = api.create_repo(name, private=trainer.get("hub_private_repo"), exist_ok=True).repo_id
        if revision:
            api.create_branch(repository, branch=revision, exist_ok=True)
        api.upload_folder(
            repo_id=repository, folder_path=model, revision=revision, commit_message="Trained model and its card"
        )
    except (HfHubHTTPError, HFValidationError, httpx.HTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{model} could not be pushed to {name} ({reason}): all of it is here; push it later with "
            f"`hf upload {name} {model}`"
        ) from error
    tell(f"pushed to the hub: {repository}")
