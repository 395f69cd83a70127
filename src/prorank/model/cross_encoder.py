"""The layout by which ``sentence_transformers.CrossEncoder`` loads a checkpoint folder without code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prorank.prompt.template import PromptTemplate

__all__ = ["jinja_of", "write_cross_encoder_layout"]


def write_cross_encoder_layout(
    folder: Path, template: PromptTemplate, label_ids: tuple[int, int], max_length: int
) -> None:
    """Files by which ``sentence_transformers.CrossEncoder`` loads the folder and computes the same margins.

    That holds for texts that fit, and for documents that are truncated. It does not know excerpts and windows, gives a
    long query all the room there is (we stop at ``query_max_length``), and reads a special token in a text as one.
    """

    def write(name: str, data: Any) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(data, indent=2) + "\n", "utf-8")

    package = "sentence_transformers"
    transformer = f"{package}.base.modules.transformer.Transformer"
    score = f"{package}.cross_encoder.modules.logit_score.LogitScore"
    write(
        "modules.json",
        [
            {"idx": 0, "name": "0", "path": "", "type": transformer},
            {"idx": 1, "name": "1", "path": "1_LogitScore", "type": score},
        ],
    )
    method = {"method": "forward", "method_output_name": "logits"}
    write(
        "sentence_bert_config.json",
        {
            "transformer_task": "text-generation",
            "modality_config": {"text": method, "message": {**method, "format": "flat"}},
            "module_output_name": "causal_logits",
            "processing_kwargs": {"text": {"max_length": max_length, "truncation": True}},
        },
    )
    irrelevant, relevant = label_ids
    write(
        "1_LogitScore/config.json",
        {"true_token_id": relevant, "false_token_id": irrelevant, "module_input_name": "causal_logits"},
    )
    write(
        "config_sentence_transformers.json",
        {
            "activation_fn": "torch.nn.modules.linear.Identity",
            "default_prompt_name": None,
            "model_type": "CrossEncoder",
            "prompts": {},
        },
    )
    chat = folder / "chat_template.jinja"
    plain = chat.read_text("utf-8") if chat.is_file() else ""
    chat.write_text(jinja_of(template, plain), "utf-8")


def jinja_of(template: PromptTemplate, plain: str = "") -> str:
    """The template as jinja over messages with roles query and document (and system: the instruction).

    Args:
        plain: the jinja for messages without a query, such as the base's chat template.
    """
    trim = " | trim" if template.strip else ""
    values = {"{query}": "query", "{document}": "document"}
    body = []
    for piece in template.pieces:
        if piece.kind == "static":
            body.append("{{ " + json.dumps(piece.text, ensure_ascii=False) + " }}")
            continue
        rest = piece.text
        while rest:
            at, name = min(
                ((rest.find(f), f) for f in ("{instruction}", *values) if f in rest), default=(len(rest), "")
            )
            if rest[:at]:
                body.append("{{ " + json.dumps(rest[:at], ensure_ascii=False) + " }}")
            if name == "{instruction}":
                before, _, after = template.instruction_format.partition("{instruction}")
                parts = [json.dumps(before, ensure_ascii=False), "ns.instruction" + trim, json.dumps(after)]
                body.append("{% if ns.instruction %}{{ " + " ~ ".join(f"({p})" for p in parts) + " }}{% endif %}")
            elif name:
                body.append("{{ ns." + values[name] + trim + " }}")
            rest = rest[at + len(name) :]
    default = json.dumps(template.default_instruction or "", ensure_ascii=False)
    read = (
        "{%- set ns = namespace(query=none, document='', instruction=" + default + ") -%}"
        "{%- for m in messages -%}"
        "{%- if m.role == 'query' -%}{%- set ns.query = m.content -%}"
        "{%- elif m.role == 'document' -%}{%- set ns.document = m.content -%}"
        "{%- elif m.role == 'system' -%}{%- set ns.instruction = m.content -%}{%- endif -%}"
        "{%- endfor -%}"
    )
    return read + "{%- if ns.query is not none -%}" + "".join(body) + "{%- else -%}" + plain + "{%- endif -%}"
