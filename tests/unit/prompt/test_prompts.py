"""Prompts: pieces join to the chat's ids, limits are exact, outside text never becomes a special token."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prorank.prompt.derive import check_template, derive_template, resolve_template
from prorank.prompt.encoder import PromptEncoder
from prorank.prompt.presets import PRESETS
from prorank.prompt.template import Piece, PromptTemplate, TemplateError

TEXT = st.text(st.characters(exclude_categories=[]), max_size=200)  # lone surrogates included
RELAXED = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def whole(encoder: PromptEncoder, query: str, document: str, instruction: str | None = None) -> list[int]:
    group = encoder.encode(query, [document], instruction).group
    return [*group.prefix_ids, *group.own_ids[0]]


def test_the_built_in_base_derives_the_preset(tokenizer: Any) -> None:
    assert derive_template(tokenizer) == PRESETS["prorank"]
    check_template(tokenizer, PRESETS["prorank"])


def test_ids_are_the_rendered_chat(tokenizer: Any) -> None:
    encoder = PromptEncoder(tokenizer, PRESETS["prorank"])
    template = PRESETS["prorank"]
    task = template.pieces[0].text.removeprefix("<|im_start|>system\n")
    messages = [
        {"role": "system", "content": task + "Prefer plain words."},
        {"role": "user", "content": "Query:\nwhat is it? \n\nPassage:\nA germ."},
    ]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    wanted = tokenizer.encode(rendered, add_special_tokens=False)
    assert whole(encoder, "what is it?", "A germ.", "Prefer plain words.") == wanted


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_data(name: str) -> None:
    template = PRESETS[name]
    assert PromptTemplate.from_dict(json.loads(json.dumps(template.to_dict()))) == template


@pytest.mark.parametrize("name", PRESETS)
@given(query=TEXT, document=TEXT, instruction=TEXT)
@RELAXED
def test_outside_text_gives_no_special_token(
    tokenizer: Any, name: str, query: str, document: str, instruction: str
) -> None:
    encoder = PromptEncoder(tokenizer, PRESETS[name], max_length=600)
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    empty = [i for i in whole(encoder, "", "", "x") if i in special]
    got = [i for i in whole(encoder, query, document, instruction or "x") if i in special]
    assert got == empty


def test_every_special_token_as_text_stays_text(tokenizer: Any) -> None:
    encoder = PromptEncoder(tokenizer, PRESETS["prorank"])
    specials = [token.content for token in tokenizer.added_tokens_decoder.values()]
    assert "<|im_end|>" in specials
    hostile = "before " + " ".join(specials) + "".join(specials) + " after"
    ids = whole(encoder, hostile[:100], hostile)
    empty = whole(encoder, "", "")
    for i in tokenizer.added_tokens_decoder:
        assert ids.count(i) == empty.count(i)
    assert "before <|im_end|>"[:8] in tokenizer.decode(ids)


@given(query=st.integers(0, 300), document=st.integers(0, 900), limit=st.integers(128, 400), own=st.integers(1, 40))
@RELAXED
def test_limits_are_exact(tokenizer: Any, query: int, document: int, limit: int, own: int) -> None:
    encoder = PromptEncoder(tokenizer, PRESETS["prorank"], max_length=limit, query_max_length=own)
    q, d = "word " * query, "germ " * document
    encoded = encoder.encode(q, [d, "short"])
    ids = [*encoded.group.prefix_ids, *encoded.group.own_ids[0]]
    fixed = len(whole(encoder, "", ""))
    query, document = (len(tokenizer.encode(text.strip())) for text in (q, d))
    assert len(ids) == min(fixed + min(query, own) + document, limit)
    assert ids[-len(encoder.suffix_ids) :] == encoder.suffix_ids
    assert encoded.truncated == int(fixed + min(query, own) + document > limit)
    assert encoded.group.own_ids[1][: -len(encoder.suffix_ids)] == tokenizer.encode("short")


def test_the_shared_prefix_is_instruction_then_query(tokenizer: Any) -> None:
    encoder = PromptEncoder(tokenizer, PRESETS["prorank"])
    a, b = encoder.encode("one", ["x"]).group, encoder.encode("another one", ["y"]).group
    assert a.instruction_length == b.instruction_length > 0
    assert a.prefix_ids[: a.instruction_length] == b.prefix_ids[: b.instruction_length]
    assert a.prefix_ids != b.prefix_ids


def test_a_megabyte_is_cut_as_its_beginning(tokenizer: Any) -> None:
    encoder = PromptEncoder(tokenizer, PRESETS["prorank"])
    text = "The immune system learns. " * 40_000
    assert len(text) > 1_000_000
    assert whole(encoder, "q", text) == whole(encoder, "q", text[:20_000])


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("long_documents", ["truncate", "excerpt"])
def test_the_end_is_kept_where_it_is_asked_for(tokenizer: Any, preset: str, long_documents: Any) -> None:
    """A long document's rows: what the template says before it, then its last tokens, then the suffix, to the brim."""
    encoder = PromptEncoder(tokenizer, PRESETS[preset], max_length=300, long_documents=long_documents)
    numbers = " ".join(f"number{n}" for n in range(400))
    short, long = encoder.encode("q", ["short", numbers], keep_end=True).group.own_ids
    assert short == encoder.encode("q", ["short"]).group.own_ids[0]
    prefix = encoder.encode("q", ["short"]).group.prefix_ids
    assert len(prefix) + len(long) == 300
    text = tokenizer.decode(long[: len(long) - len(encoder.suffix_ids)])
    head = next(piece.text for piece in PRESETS[preset].pieces if "{document}" in piece.text).partition("{document}")[0]
    assert text.startswith(head)
    assert numbers.endswith(text[len(head) :])
    assert encoder.encode("q", ["short", numbers], keep_end=True).truncated == 1
    windows = encoder.with_long_documents("max_window")
    assert windows.encode("q", [numbers], keep_end=True) == windows.encode("q", [numbers]), "nothing is cut there"


def test_windows_cover_the_whole_document(tokenizer: Any) -> None:
    encoder = PromptEncoder(tokenizer, PRESETS["prorank"], max_length=100, long_documents="max_window")
    words = [f"w{i}" for i in range(200)]
    encoded = encoder.encode("q", [" ".join(words), "short"])
    assert set(encoded.row_document) == {0, 1}
    assert encoded.row_document.count(1) == 1
    assert encoded.truncated == 0
    suffix = len(encoder.suffix_ids)
    windows = [row[:-suffix] for row, d in zip(encoded.group.own_ids, encoded.row_document, strict=True) if d == 0]
    text = "".join(tokenizer.decode(window) for window in windows)
    assert all(word in text for word in words[::7])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_words": ["no way", "1"]}, "label word 'no way' is 2 tokens"),
        ({"label_words": ["1", "1"]}, "same token id"),
        ({"answer_end": ""}, "answer_end"),
    ],
)
def test_unusable_templates_are_refused(tokenizer: Any, change: dict[str, Any], message: str) -> None:
    template = PromptTemplate.from_dict(PRESETS["prorank"].to_dict() | change)
    with pytest.raises(TemplateError, match=message):
        PromptEncoder(tokenizer, template)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pieces": [{"static": "x"}]}, "must hold"),
        ({"pieces": [{"user": "{document}"}, {"user": "{query}"}]}, "the query first"),
        ({"pieces": [{"odd": "{query}"}]}, "must hold|must be"),
        ({"colour": "red"}, "colour"),
        ({"label_words": "01x"}, "template data"),
    ],
)
def test_malformed_template_data_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        PromptTemplate.from_dict(PRESETS["prorank"].to_dict() | change)


def test_template_order_is_enforced() -> None:
    pieces = (Piece("user", "{query}"), Piece("user", "{instruction}{document}"))
    with pytest.raises(TemplateError, match="instruction"):
        PromptTemplate("t", pieces, ("0", "1"), "<|im_end|>")


def test_no_room_is_a_clear_error(tokenizer: Any) -> None:
    with pytest.raises(TemplateError, match="max_length 20 is too small"):
        PromptEncoder(tokenizer, PRESETS["prorank"], max_length=20)
    encoder = PromptEncoder(tokenizer, PRESETS["prorank"], max_length=100)
    with pytest.raises(ValueError, match="no room for a document"):
        encoder.encode("q", ["d"], "long instruction " * 100)
    with pytest.raises(TypeError, match="document must be a string"):
        encoder.encode("q", [None])  # type: ignore[list-item]


def test_resolve_template(tokenizer: Any, tmp_path: Any) -> None:
    assert resolve_template("mxbai-rerank-v2", tokenizer) is PRESETS["mxbai-rerank-v2"]
    path = tmp_path / "t.json"
    path.write_text(json.dumps(PRESETS["qwen3-reranker"].to_dict()))
    assert resolve_template(str(path), tokenizer) == PRESETS["qwen3-reranker"]
    with pytest.raises(TemplateError, match="neither a preset"):
        resolve_template("nope", tokenizer)
    path.write_text("{")
    with pytest.raises(TemplateError, match="not JSON"):
        resolve_template(str(path), tokenizer)


def test_a_base_without_chat_template_is_a_clear_error(tokenizer: Any) -> None:
    import copy

    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    with pytest.raises(TemplateError, match="no chat template"):
        derive_template(bare)


def test_a_base_without_system_turn_gets_the_task_in_the_users(tokenizer: Any) -> None:
    import copy

    other = copy.deepcopy(tokenizer)
    other.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    template = derive_template(other)
    assert template.pieces[0].text.startswith("<|im_start|>user\nJudge")
    check = PromptEncoder(other, template).encode("q", ["d"])
    assert check.group.instruction_length > 0
