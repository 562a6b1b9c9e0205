"""Completions from vLLM in this process (`pip install 'concise-rl[vllm]'`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from concise_rl.errors import UserError
from concise_rl.evaluation.backends.base import Completion, Finished, Request, Sampling
from concise_rl.evaluation.backends.transformers import prompt_ids
from concise_rl.rollouts import single_token, think_length

SEEDS = 2**31

LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as `max_lora_rank`; an adapter of any rank up to it fits."""


class VLLMBackend:
    """`vllm.LLM.generate` on token ids, in waves, so that what is finished is stored before all of it is.

    Args:
        model: folder or hub id; a LoRA adapter's folder is served on the model that it names as its base.
        wave_rows: completions that one call of vLLM makes.
        dtype, revision, trust_remote_code: as in `model.*`.
        engine: further arguments of `vllm.LLM` (`tensor_parallel_size`, `max_model_len`, ...); they win.

    Raises:
        UserError: vLLM is not installed, cannot load the model, or cannot serve the adapter.
    """

    def __init__(
        self,
        model: str,
        *,
        wave_rows: int = 2048,
        dtype: str = "auto",
        revision: str | None = None,
        trust_remote_code: bool = False,
        engine: Mapping[str, Any] | None = None,
    ) -> None:
        try:
            from vllm import LLM
        except ImportError as error:
            raise UserError("backend=vllm needs vLLM: pip install 'concise-rl[vllm]', or choose another one") from error
        if wave_rows < 1:
            raise UserError(f"wave_rows={wave_rows}: a wave has one completion or more")
        self.model, self.wave_rows, self.revision = model, wave_rows, revision
        adapter = Adapter.of(model)
        at = adapter.revision if adapter else revision
        options: dict[str, Any] = {"dtype": dtype, "trust_remote_code": trust_remote_code}
        options |= {"revision": at, "tokenizer_revision": at}
        if adapter is not None:
            options |= {"enable_lora": True, "max_lora_rank": adapter.rank}
            if adapter.has_tokenizer:
                options |= {"tokenizer": model, "tokenizer_revision": None}
        served = adapter.base if adapter else model
        try:
            self._llm = LLM(model=served, **options | dict(engine or {}))
        except (ValueError, OSError, RuntimeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"vLLM cannot load {served} ({reason}): check the path and engine settings") from error
        self._tokenizer = self._llm.get_tokenizer()
        self._lora = {} if adapter is None else {"lora_request": adapter.request()}

    def generate(self, requests: Sequence[Request], sampling: Sampling, finished: Finished) -> None:
        """See `Backend.generate`."""
        tag = single_token(self._tokenizer, sampling.think_end)
        for begin in range(0, len(requests), self.wave_rows):
            wave = requests[begin : begin + self.wave_rows]
            outputs = self._llm.generate(
                [{"prompt_token_ids": prompt_ids(self._tokenizer, request)} for request in wave],
                [_parameters(sampling, request) for request in wave],
                use_tqdm=False,
                **self._lora,
            )
            for row, output in enumerate(outputs, start=begin):
                ids = tuple(output.outputs[0].token_ids)
                ended = output.outputs[0].finish_reason == "stop"
                completion = Completion(
                    # A model may end with another token than its tokenizer's EOS; whichever it was is no text.
                    text=self.decode(ids[:-1] if ended else ids),
                    length=len(ids),
                    truncated=not ended,
                    think_length=think_length(ids, tag),
                    tokens=ids,
                )
                finished(row, completion)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of all but EOS and padding."""
        silent = {self._tokenizer.eos_token_id, self._tokenizer.pad_token_id}
        return self._tokenizer.decode([token for token in token_ids if token not in silent])

    def identity(self) -> dict[str, Any]:
        """The model's path and revision; vLLM holds the weights where they are not read back."""
        revision = {} if self.revision is None else {"revision": self.revision}
        return {"backend": "vllm", "model": self.model, **revision}


def _parameters(sampling: Sampling, request: Request) -> Any:
    from vllm import SamplingParams

    return SamplingParams(
        max_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k or -1,  # all tokens, in every version
        min_p=sampling.min_p,
        repetition_penalty=1.0,
        seed=request.seed % SEEDS,
        skip_special_tokens=False,
    )


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter's folder as PEFT saves it.

    Attributes:
        folder: where it lies.
        base: folder or hub id of the model that it changes.
        revision: of the base.
        rank: the smallest `max_lora_rank` that holds it.
        has_tokenizer: the folder holds a tokenizer of its own.
    """

    folder: str
    base: str
    revision: str | None
    rank: int
    has_tokenizer: bool

    @classmethod
    def of(cls, path: str) -> Adapter | None:
        """The adapter of a folder; None where it holds none.

        Raises:
            UserError: its configuration cannot be read, or it is one that vLLM does not serve.
        """
        folder = Path(path).expanduser()
        file = folder / "adapter_config.json"
        if not file.is_file():
            return None
        try:
            found = json.loads(file.read_bytes())
            base, kind, rank = str(found["base_model_name_or_path"]), found["peft_type"], int(found["r"])
            ranks = [rank, *map(int, (found.get("rank_pattern") or {}).values())]
            odd = [name for name in ("modules_to_save", "use_dora", "alora_invocation_tokens") if found.get(name)]
            odd += ["bias"] if found.get("bias", "none") != "none" else []
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UserError(f"{file} is no adapter's configuration ({error!r}): save the adapter again") from error
        if kind != "LORA" or odd or max(ranks) > LORA_RANKS[-1]:
            what = kind if kind != "LORA" else ", ".join(odd) or f"r={max(ranks)}"
            raise UserError(
                f"model.path={path}: vLLM serves no adapter with {what}: merge it into its base "
                "(peft's merge_and_unload) and name the merged folder, or use backend=transformers"
            )
        fitting = next(size for size in LORA_RANKS if size >= max(ranks))
        return cls(str(folder), base, found.get("revision"), fitting, any(folder.glob("tokenizer*")))

    def request(self) -> Any:
        """What each call of `generate` is given."""
        from vllm.lora.request import LoRARequest

        return LoRARequest("adapter", 1, self.folder)
