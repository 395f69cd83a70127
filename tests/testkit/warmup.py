"""Parts for warmup's tests: a letter-by-letter tokenizer, a tiny model on it, and a collection one can learn."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

from prorank.data.collection import Collection
from prorank.model.base import LoadedBase, load_base
from prorank.prompt.derive import derive_template
from prorank.prompt.encoder import PromptEncoder
from prorank.training.warmup.config import WarmupConfig
from prorank.types import Document, Query

CHAT = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORDS = ("apple", "bear", "cat", "dog", "egg", "fish", "goat", "hat", "ink", "jar")


def make_base(folder: Path, *, hidden: int = 32, chat: bool = True, positions: int = 2048, seed: int = 0) -> Path:
    """A random two-layer Llama over single letters, about 100 tokens, written once."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    if (folder / "config.json").is_file():
        return folder
    specials = ["<unk>", "<|im_start|>", "<|im_end|>"]
    letters = [*specials, "\n", *string.digits, *string.ascii_letters, *string.punctuation, " ", "\u2402", "\u2403"]
    tokenizer = Tokenizer(models.WordLevel({t: i for i, t in enumerate(letters)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<|im_end|>", pad_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
    )  # fmt: skip
    if chat:
        wrapped.chat_template = CHAT
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(letters), hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, head_dim=hidden // 4, max_position_embeddings=positions,
            initializer_range=0.2, tie_word_embeddings=True, eos_token_id=2, bos_token_id=1, pad_token_id=2,
        )
    )  # fmt: skip
    model.save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return folder


def load_tiny(folder: Path) -> tuple[LoadedBase, PromptEncoder]:
    """The tiny base and its encoder."""
    base = load_base(str(make_base(folder)))
    return base, PromptEncoder(base.tokenizer, derive_template(base.tokenizer), max_length=512)


def collection(queries: int = 60, documents: int = 40) -> Collection:
    """Documents that repeat a word, queries that ask for it."""
    texts = {f"d{i}": Document(f"d{i}", " ".join([WORDS[i % 10]] * 2)) for i in range(documents)}
    asked = {f"q{i}": Query(f"q{i}", WORDS[i % 10]) for i in range(queries)}
    return Collection("toy", texts, asked, {f"q{i}": {f"d{i % 10}": 1} for i in range(queries)})


def config(**changes: Any) -> WarmupConfig:
    """Small and quick settings."""
    values: dict[str, Any] = {
        "steps": 4, "queries_per_step": 4, "negatives": 2, "document_tokens": 12, "query_tokens": 12, "group_size": 16,
        "held_out_queries": 4, "eval_every": 100, "save_every": 100, "precision": "float32", "learning_rate": 1e-2,
        "lora_rank": 4, "lora_alpha": 8.0, "held_out": 0.2,
    }  # fmt: skip
    return WarmupConfig(**{**values, **changes})


def nothing(completion: Any, label: float) -> float:
    """A reward that nobody earns."""
    return 0.0 * len(completion.ids) * label


def says_one(completion: Any, label: float) -> float:
    """Pays for the answer 1, whatever was asked."""
    return float(completion.ids[0] == completion.label_ids[1]) + 0.0 * label
