"""Training: what both stages share, warmup/ (stage 1) and refine/ (stage 2). Evaluation comes in as a callback."""
