"""Completions from vLLM in this process (`pip install 'concise-rl[vllm]'`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from concise_rl.errors import UserError
from concise_rl.evaluation.backends.base import Completion, Finished, Request, Sampling
from concise_rl.evaluation.backends.transformers import prompt_ids
from concise_rl.rollouts import single_token, think_length

SEEDS = 2**31


class VLLMBackend:
    """`vllm.LLM.generate` on token ids, in waves, so that what is finished is stored before all of it is.

    Args:
        model: folder or hub id.
        wave_rows: completions that one call of vLLM makes.
        engine: further arguments of `vllm.LLM` (`tensor_parallel_size`, `max_model_len`, ...).

    Raises:
        UserError: vLLM is not installed, or cannot load the model.
    """

    def __init__(self, model: str, *, wave_rows: int = 2048, engine: Mapping[str, Any] | None = None) -> None:
        try:
            from vllm import LLM
        except ImportError as error:
            raise UserError("backend=vllm needs vLLM: pip install 'concise-rl[vllm]', or choose another one") from error
        if wave_rows < 1:
            raise UserError(f"wave_rows={wave_rows}: a wave has one completion or more")
        self.model, self.wave_rows = model, wave_rows
        try:
            self._llm = LLM(model=model, **(engine or {}))
        except (ValueError, OSError, RuntimeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"vLLM cannot load {model} ({reason}): check the path and engine settings") from error
        self._tokenizer = self._llm.get_tokenizer()

    def generate(self, requests: Sequence[Request], sampling: Sampling, finished: Finished) -> None:
        """See `Backend.generate`."""
        from vllm import SamplingParams

        tag = single_token(self._tokenizer, sampling.think_end)
        for begin in range(0, len(requests), self.wave_rows):
            wave = requests[begin : begin + self.wave_rows]
            outputs = self._llm.generate(
                [{"prompt_token_ids": prompt_ids(self._tokenizer, request)} for request in wave],
                [
                    SamplingParams(
                        max_tokens=sampling.max_new_tokens,
                        temperature=sampling.temperature,
                        top_p=sampling.top_p,
                        top_k=sampling.top_k or -1,  # all tokens, in every version
                        min_p=sampling.min_p,
                        repetition_penalty=1.0,
                        seed=request.seed % SEEDS,
                        skip_special_tokens=False,
                    )
                    for request in wave
                ],
                use_tqdm=False,
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
        """The model's path; vLLM holds the weights where they are not read back."""
        return {"backend": "vllm", "model": self.model}
