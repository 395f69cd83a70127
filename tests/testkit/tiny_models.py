"""Tiny random checkpoints of several architectures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3", "mistral")


def make_tiny(
    folder: Path, architecture: str, tokenizer: Any, *, seed: int = 0, layers: int = 2, **other_sizes: Any
) -> Path:
    """Write a random checkpoint of an architecture; hidden size 32, the tokenizer's vocabulary.

    Args:
        other_sizes: of the configuration, in place of ours.
    """
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    names = {"gemma3": "gemma3_text"}
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 2048,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.5,
    }
    if architecture in ("gemma3", "mistral"):
        sizes["sliding_window"] = 64
    sizes |= other_sizes
    config = CONFIG_MAPPING[names.get(architecture, architecture)](**sizes)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tiny_bert(folder: Path, kind: str = "sparse", *, seed: int = 0) -> Path:
    """Write a random encoder with a word list of its own.

    Args:
        kind: ``sparse`` (a masked language model, as SPLADE's), or ``dense`` (a sentence-transformers bi-encoder).
    """
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForMaskedLM, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = special + [a + b for a in "abcdefghij" for b in ("", "l", "n", "r", "s", "t")]
    words += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"] + list("klmnopqrstuvwxyz0123456789.,?")
    plain = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    plain.normalizer = normalizers.BertNormalizer()
    plain.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    plain.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, model_max_length=128, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]",
    )  # fmt: skip
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=128, initializer_range=0.5,
    )  # fmt: skip
    torch.manual_seed(seed)
    if kind == "sparse":
        BertForMaskedLM(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    BertModel(config).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    parts = [Transformer(str(folder / "bert")), Pooling(16)]
    SentenceTransformer(modules=parts).save(str(folder / "model"))
    return folder / "model"
