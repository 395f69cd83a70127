"""The prompts we know by name: ours, and those that published rerankers were trained with. All of it is data."""

from __future__ import annotations

from prorank.prompt.template import Piece, PromptTemplate

__all__ = ["DEFAULT_INSTRUCTION", "PRESETS", "TASK"]

TASK = "Judge whether a passage is relevant to a query. Answer with one digit: 1 if it is relevant, 0 if it is not."
DEFAULT_INSTRUCTION = "A relevant passage helps to answer the query."

PRESETS: dict[str, PromptTemplate] = {
    # Ours, as it comes out of derive_template for a ChatML base (SmolLM2, Qwen2.5); see derive.py.
    "prorank": PromptTemplate(
        name="prorank",
        pieces=(
            Piece("static", f"<|im_start|>system\n{TASK}\n"),
            Piece("user", "{instruction}"),
            Piece("static", "<|im_end|>\n<|im_start|>user\nQuery:\n"),
            Piece("user", "{query}"),
            Piece("static", " \n\nPassage:\n"),  # the space keeps "?" and the line break apart in every tokenizer
            Piece("user", "{document}"),
            Piece("static", "<|im_end|>\n<|im_start|>assistant\n"),
        ),
        label_words=("0", "1"),
        answer_end="<|im_end|>",
        default_instruction=DEFAULT_INSTRUCTION,
        strip=True,
    ),
    # The prompt that mixedbread-ai/mxbai-rerank-*-v2 were trained with (fact: package mxbai-rerank, Apache-2.0).
    "mxbai-rerank-v2": PromptTemplate(
        name="mxbai-rerank-v2",
        pieces=(
            Piece(
                "static",
                "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
                "<|im_start|>user\n",
            ),
            Piece("user", "{instruction}query: {query}"),
            Piece("static", "\n"),
            Piece("user", "document: {document}"),
            Piece(
                "static",
                "\nYou are a search relevance expert who evaluates how well documents match search queries. For each "
                "query-document pair, carefully analyze the semantic relationship between them, then provide your "
                "binary relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
                "<|im_end|>\n<|im_start|>assistant\n",
            ),
        ),
        label_words=("0", "1"),
        answer_end="<|im_end|>",
        instruction_format="instruction: {instruction}\n",
        query_share=0.75,
        probability_shift=-4.5,
    ),
    # The prompt that Qwen/Qwen3-Reranker-* were trained with (fact: their model cards, Apache-2.0).
    "qwen3-reranker": PromptTemplate(
        name="qwen3-reranker",
        pieces=(
            Piece(
                "static",
                "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
                'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n',
            ),
            Piece("user", "<Instruct>: {instruction}\n<Query>: {query}\n<Document>:"),
            Piece("user", " {document}"),
            Piece("static", "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"),
        ),
        label_words=("no", "yes"),
        answer_end="<|im_end|>",
        default_instruction="Given a web search query, retrieve relevant passages that answer the query",
        query_share=0.5,
    ),
}
