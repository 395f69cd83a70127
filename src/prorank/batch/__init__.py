"""Scoring many pairs beyond one process: rows in, parts with scores out, by processes here or by a Ray cluster.

from prorank.batch.job import ScoreRun, score_pairs

score_pairs(ScoreRun(out="scored", input=["pairs/*.parquet"]), LoadOptions(processes=4))
"""
