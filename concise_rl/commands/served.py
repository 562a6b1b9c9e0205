"""What `vllm serve` must be told so that it samples from the very model that a run trains; launch/gpu8_server.sh.

python -m concise_rl.commands.served run=gpu8_server model=qwen3_4b     prints one argument a line
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from omegaconf import DictConfig

from concise_rl.commands import config as configuration
from concise_rl.errors import UserError

TRAINABLE = (
    *("--weight-transfer-config", '{"backend": "nccl"}'),
    *("--logprobs-mode", "processed_logprobs", "--max-logprobs", "-1"),
)
"""The trainer sends weights, and compares log-probs at the sampling temperature."""

DEVELOPMENT = {"VLLM_SERVER_DEV_MODE": "1"}
"""The server's environment: without it there are no end points for weights."""


def server_arguments(config: DictConfig) -> list[str]:
    """Arguments of `vllm serve`: path, revision, remote code and dtype of what `model.path` names, and `TRAINABLE`.

    Below an adapter that is its base: the trainer sends merged weights before anything is sampled. The dtype is the one
    in which the trainer computes.

    Raises:
        UserError: no server could load it: a GGUF file.
    """
    from concise_rl.model.adapters import base_spec, is_adapter
    from concise_rl.model.loading import EMBEDDED, is_gguf

    spec = base_spec(config.model) if is_adapter(config.model.path) else config.model
    if is_gguf(spec.path):
        raise UserError(f"model.path={spec.path}: the server reads no GGUF file; save it as a folder first")
    arguments = [EMBEDDED.get(spec.path, spec.path), "--dtype", _dtype(config)]
    if spec.revision:
        arguments += ["--revision", spec.revision, "--tokenizer-revision", spec.revision]
    if spec.trust_remote_code:
        arguments += ["--trust-remote-code"]
    return [*arguments, *TRAINABLE]


def _dtype(config: DictConfig) -> str:
    halves = {"bf16": "bfloat16", "fp16": "float16"}
    return next((dtype for field, dtype in halves.items() if config.trainer.get(field)), config.model.dtype)


def main() -> None:
    try:
        sys.stdout.write("\n".join(server_arguments(configuration.compose(_overrides(sys.argv[1:])))) + "\n")
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


def _overrides(arguments: Sequence[str]) -> list[str]:
    return [argument for argument in arguments if argument not in ("-m", "--multirun")]


if __name__ == "__main__":
    main()
