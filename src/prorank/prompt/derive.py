"""Derive our own prompt template from a base's chat template, once; afterwards it is data.

The chat template is rendered with markers in the places of instruction, query and document, and cut at the markers.
A check then proves that a chat rendered by the tokenizer and the same prompt joined from our pieces have the same ids.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prorank.prompt.encoder import PromptEncoder
from prorank.prompt.presets import DEFAULT_INSTRUCTION, PRESETS, TASK
from prorank.prompt.template import Piece, PromptTemplate, TemplateError

__all__ = ["check_template", "derive_template", "resolve_template"]

_MARKS = {"instruction": "\u2402i\u2403", "query": "\u2402q\u2403", "document": "\u2402d\u2403"}
_ANSWER = "\u2402a\u2403"
_SAMPLE = {
    "instruction": "Find what answers the question",
    "query": "who wrote Emma",
    "document": "Jane Austen wrote it",
}


def resolve_template(template: str | PromptTemplate | None, tokenizer: Any) -> PromptTemplate:
    """A template from a preset's name, a JSON file, or a template; ``None`` and ``"prorank"`` derive ours.

    Raises:
        TemplateError: no such preset or file, or the base has no chat template to derive ours from.
    """
    if isinstance(template, PromptTemplate):
        return template
    if template in (None, "prorank"):
        return derive_template(tokenizer)
    assert template is not None
    if template in PRESETS:
        return PRESETS[template]
    path = Path(template)
    if path.is_file():
        try:
            return PromptTemplate.from_dict(json.loads(path.read_text("utf-8")))
        except json.JSONDecodeError as error:
            raise TemplateError(f"template {template}: not JSON: {error}") from error
    raise TemplateError(f"template {template!r} is neither a preset ({', '.join(PRESETS)}) nor a JSON file")


def derive_template(tokenizer: Any) -> PromptTemplate:
    """Our prompt in the words of this tokenizer's chat template.

    Raises:
        TemplateError: the tokenizer has no chat template, or rearranges what it is given.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise TemplateError(
            "the base has no chat template, so the prorank prompt cannot be derived from it; use an "
            "instruction-tuned base, or give --template a preset's name or a JSON file"
        )
    rendered = _render(tokenizer, _MARKS)
    pieces: list[Piece] = []
    rest = rendered
    for field, mark in _MARKS.items():
        before, found, rest = rest.partition(mark)
        if not found or mark in rest:
            raise TemplateError(f"the base's chat template drops, repeats or reorders the {field}; give --template")
        pieces += [Piece("static", before), Piece("user", f"{{{field}}}")]
    pieces.append(Piece("static", rest))
    template = PromptTemplate(
        name="prorank",
        pieces=tuple(pieces),
        label_words=("0", "1"),
        answer_end=_answer_end(tokenizer),
        default_instruction=DEFAULT_INSTRUCTION,
        strip=True,
    )
    check_template(tokenizer, template)
    return template


def check_template(tokenizer: Any, template: PromptTemplate) -> None:
    """Prove on a sample that our pieces, joined, are the very ids of the rendered chat.

    Raises:
        TemplateError: they differ (a tokenizer that merges across the places where our pieces meet).
    """
    rendered = list(tokenizer.encode(_render(tokenizer, _SAMPLE), add_special_tokens=False))
    group = (
        PromptEncoder(tokenizer, template, max_length=4096)
        .encode(_SAMPLE["query"], [_SAMPLE["document"]], _SAMPLE["instruction"])
        .group
    )
    ours = [*group.prefix_ids, *group.own_ids[0]]
    if ours != rendered:
        at = next(
            (i for i, (a, b) in enumerate(zip(ours, rendered, strict=False)) if a != b), min(len(ours), len(rendered))
        )
        raise TemplateError(
            f"the derived template does not tokenise like the base's chat template: token {at} is "
            f"{tokenizer.decode(ours[at : at + 1])!r} instead of {tokenizer.decode(rendered[at : at + 1])!r}"
        )


def _messages(values: dict[str, str], *, system: bool) -> list[dict[str, str]]:
    task = f"{TASK}\n{values['instruction']}"
    pair = f"Query:\n{values['query']} \n\nPassage:\n{values['document']}"
    if system:
        return [{"role": "system", "content": task}, {"role": "user", "content": pair}]
    return [{"role": "user", "content": f"{task}\n\n{pair}"}]


def _render(tokenizer: Any, values: dict[str, str]) -> str:
    for system in (True, False):  # some bases refuse a system turn: then the task opens the user's turn
        try:
            text = tokenizer.apply_chat_template(
                _messages(values, system=system), tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        except Exception as error:  # jinja raises what the template's author chose
            failure = error
            continue
        if all(value in text for value in values.values()):
            return str(text)
        failure = TemplateError("it drops part of what it is given")
    raise TemplateError(f"the base's chat template does not render: {failure}; give --template")


def _answer_end(tokenizer: Any) -> str:
    """The token that closes the assistant's turn: what a well-formed answer is followed by."""
    messages = [*_messages(_SAMPLE, system=False), {"role": "assistant", "content": _ANSWER}]
    tail = str(tokenizer.apply_chat_template(messages, tokenize=False, enable_thinking=False)).partition(_ANSWER)[2]
    ids = tokenizer.encode(tail, add_special_tokens=False) if tail else []
    special = [i for i in ids if i in tokenizer.all_special_ids or i in tokenizer.added_tokens_decoder]
    if special:
        return str(tokenizer.convert_ids_to_tokens(special[0]))
    if tokenizer.eos_token:
        return str(tokenizer.eos_token)
    raise TemplateError("the base's chat template does not close the assistant's turn and there is no eos token")
