"""Benchmarks: runs/ measures, results/ keeps one JSON line a run, tables/ writes the pages' tables from those lines."""
