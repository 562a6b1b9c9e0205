"""What a model is reached through: transformers on this machine, vLLM, or an OpenAI-compatible server."""

from concise_rl.evaluation.backends.base import Backend, Completion, Request, Sampling
from concise_rl.evaluation.backends.http import HTTPBackend
from concise_rl.evaluation.backends.transformers import TransformersBackend
from concise_rl.evaluation.backends.vllm import VLLMBackend

__all__ = [
    "Backend",
    "Completion",
    "HTTPBackend",
    "Request",
    "Sampling",
    "TransformersBackend",
    "VLLMBackend",
]
