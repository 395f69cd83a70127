"""What OpenAI-compatible servers answer: the choices by prompt, and the alternatives for the first token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["IMPOSSIBLE", "Alternative", "alternatives", "ordered"]

IMPOSSIBLE = -9999.0
"""What vLLM writes for minus infinity."""


class Alternative:
    """One of the returned tokens: its id where the server says it, its text, its log-probability."""

    __slots__ = ("logprob", "text", "token_id")

    def __init__(self, text: str, logprob: float, token_id: int | None = None) -> None:
        number = text.removeprefix("token_id:")
        if token_id is None and number != text and number.isdecimal():
            token_id = int(number)
        self.text, self.logprob = text, float(logprob)
        self.token_id = token_id if isinstance(token_id, int) else None


def alternatives(choice: Mapping[str, Any]) -> list[Alternative]:
    """The alternatives for the first generated token, from either form that servers use; empty where there are none.

    vLLM, SGLang and OpenAI: ``logprobs.top_logprobs[0]``, token -> log-probability. llama.cpp:
    ``logprobs.content[0].top_logprobs``, a list of objects with ``id``, ``token`` and ``logprob``.
    """
    try:
        logprobs = choice["logprobs"]
        if "content" in logprobs:
            entries = logprobs["content"][0]["top_logprobs"]
            return [Alternative(entry["token"], entry["logprob"], entry.get("id")) for entry in entries]
        return [Alternative(token, value) for token, value in logprobs["top_logprobs"][0].items()]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return []


def ordered(answer: Mapping[str, Any], count: int) -> list[Mapping[str, Any]] | None:
    """The choices by prompt, or None where they are not one for each."""
    choices = answer.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        return None
    if count == 1:
        return choices if len(choices) == 1 else None
    by_index = {choice.get("index"): choice for choice in choices}
    if len(choices) != count or set(by_index) != set(range(count)):
        return None
    return [by_index[i] for i in range(count)]
