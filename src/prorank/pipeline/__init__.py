"""Training from data to a judged reranker: what the commands warmup, refine and train call."""
