"""The command line: ``main`` dispatches, one file per command; only the chosen command's file is imported."""
