"""A tokenizer's vocabulary and rules as GGUF metadata: copied from a GGUF file, or written from ``tokenizer.json``.

prorank sends token ids, so that its own scores need no more than the number of tokens; other programs read the rest.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import gguf

__all__ = ["copy_tokenizer", "write_tokenizer"]

logger = logging.getLogger(__name__)

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPLITS = {_WORDS + r"\p{N}" + _REST: "qwen2", _WORDS + r"\p{N}{1,3}" + _REST: "llama-bpe"}
"""A tokenizer's splitting expression -> llama.cpp's name for it."""
_LOWEST = -1e6  # the score of tokens that no merge makes


def copy_tokenizer(writer: gguf.GGUFWriter, source: Path, tokenizer: Any, vocab_size: int) -> None:
    """Add the tokenizer keys of a GGUF file as they are.

    Args:
        tokenizer: the model's; its tokens must be the source's, id by id.
        vocab_size: rows of the model's embedding.

    Raises:
        ValueError: the source cannot be read, or its tokens differ.
    """
    if not source.is_file():
        raise ValueError(f"source {source}: no such file")
    try:
        fields = gguf.GGUFReader(source).fields
        tokens = _value(fields[gguf.Keys.Tokenizer.LIST])
    except (ValueError, KeyError, IndexError) as error:
        raise ValueError(f"source {source} cannot be read as GGUF: {type(error).__name__}: {error}") from error
    if len(tokens) != vocab_size:
        raise ValueError(f"source {source} has {len(tokens)} tokens and the model {vocab_size}: another tokenizer")
    for token, number in tokenizer.backend_tokenizer.get_vocab(with_added_tokens=True).items():
        if number >= vocab_size or tokens[number] != token:
            found = tokens[number] if number < vocab_size else None
            raise ValueError(f"source {source}: token {number} is {found!r}, the model's tokenizer has {token!r}")
    for key, field in fields.items():
        if not key.startswith("tokenizer."):
            continue
        if field.types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_array(key, _value(field))
        else:
            writer.add_key_value(key, _value(field), field.types[0])


def _value(field: Any) -> Any:
    texts = field.types[-1] == gguf.GGUFValueType.STRING
    values = [bytes(field.parts[i]).decode("utf-8") if texts else field.parts[i][0].item() for i in field.data]
    return values if field.types[0] == gguf.GGUFValueType.ARRAY else values[0]


def write_tokenizer(writer: gguf.GGUFWriter, tokenizer: Any, config: Any) -> None:
    """Add the keys of a BPE tokenizer, byte-level (GPT-2, SmolLM, Qwen, Llama 3) or with byte fallback (Llama 2).

    Args:
        tokenizer: with a ``backend_tokenizer`` of the tokenizers library.
        config: the model's; gives the number of tokens and, where the tokenizer has none, special ids.

    Raises:
        ValueError: the tokenizer is of another kind, or has more tokens than the model.
    """
    backend = tokenizer.backend_tokenizer
    data = json.loads(backend.to_str())
    model = data["model"]
    if model["type"] != "BPE":
        raise ValueError(f"tokenizer: a {model['type']} model cannot be written as GGUF here; expected BPE")
    vocabulary = backend.get_vocab(with_added_tokens=True)
    if max(vocabulary.values()) >= config.vocab_size:
        raise ValueError(f"tokenizer: it has {max(vocabulary.values()) + 1} tokens and the model {config.vocab_size}")
    added = {token["id"]: token for token in data["added_tokens"]}
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    tokens = [f"[PAD{number}]" for number in range(config.vocab_size)]
    kinds = [gguf.TokenType.UNUSED] * config.vocab_size
    fallback = bool(model.get("byte_fallback"))
    for token, number in vocabulary.items():
        tokens[number] = token
        kinds[number] = gguf.TokenType.NORMAL
        if number in added:
            kinds[number] = gguf.TokenType.CONTROL if added[number]["special"] else gguf.TokenType.USER_DEFINED
        if fallback and token == model.get("unk_token"):
            kinds[number] = gguf.TokenType.UNKNOWN
        elif fallback and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            kinds[number] = gguf.TokenType.BYTE
    writer.add_tokenizer_model("llama" if fallback else "gpt2")
    writer.add_tokenizer_pre("default" if fallback else _pre_tokenizer(data["pre_tokenizer"]))
    writer.add_token_list(tokens)
    if fallback:
        writer.add_token_scores(_scores(tokens, merges))
        writer.add_add_space_prefix(_prepends_space(data))
    writer.add_token_types(kinds)
    if not fallback:
        writer.add_token_merges(merges)
    for name in ("bos", "eos", "unk", "pad"):
        number = getattr(tokenizer, f"{name}_token_id", None)
        number = number if number is not None else getattr(config, f"{name}_token_id", None)
        if isinstance(number, int):
            getattr(writer, f"add_{name}_token_id")(number)
    plain = backend.encode("a", add_special_tokens=False).ids
    whole = backend.encode("a", add_special_tokens=True).ids
    writer.add_add_bos_token(whole[:1] != plain[:1])
    writer.add_add_eos_token(whole[-1:] != plain[-1:])
    if isinstance(template := getattr(tokenizer, "chat_template", None), str):
        writer.add_chat_template(template)


def _pre_tokenizer(rules: Any) -> str:
    """llama.cpp's name for how a byte-level tokenizer cuts a text before it merges."""
    steps = rules.get("pretokenizers", [rules]) if rules else []
    kinds = [step["type"] for step in steps]
    spaced = any(step.get("add_prefix_space") for step in steps)
    if kinds == ["ByteLevel"] and steps[0]["use_regex"] and not spaced:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"] and steps[1]["use_regex"] and not spaced:
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and not steps[1]["use_regex"]:
        name = _SPLITS.get(steps[0]["pattern"].get("Regex", ""))
        if name is not None:
            return name
    logger.warning("the tokenizer's splitting rules have no name in llama.cpp: it will cut texts by its default ones")
    return "default"


def _scores(tokens: list[str], merges: list[str]) -> list[float]:
    """llama.cpp joins the neighbours whose token has the highest score: minus the rank of the merge that makes it."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault(merge.replace(" ", ""), rank)
    return [-float(ranks[token]) if token in ranks else _LOWEST for token in tokens]


def _prepends_space(data: dict[str, Any]) -> bool:
    for part in (data["normalizer"], data["pre_tokenizer"]):
        steps = (part.get("normalizers") or part.get("pretokenizers") or [part]) if part else []
        if any(step["type"] == "Prepend" or step.get("prepend_scheme") in ("first", "always") for step in steps):
            return True
    return False
