"""Print a script that completes commands, flags, their values and file names in bash, zsh or fish.

source <(prorank completion bash)                              # this shell; into ~/.bashrc for all
prorank completion zsh > ~/.zfunc/_prorank                     # a folder of $fpath
prorank completion fish > ~/.config/fish/completions/prorank.fish
"""

from __future__ import annotations

import argparse
import sys

from prorank._optional import require

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``prorank completion``."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="which shell")


def run(args: argparse.Namespace) -> int:
    """Write the script to standard output."""
    shtab = require("shtab", extra="completion")
    sys.stdout.write(shtab.complete(_whole_parser(shtab), args.shell).rstrip() + "\n")
    return 0


def _whole_parser(shtab: object) -> argparse.ArgumentParser:
    """All commands in one parser, file names completed where a file or folder is expected."""
    from prorank.cli.main import COMMANDS, build_parser

    whole = argparse.ArgumentParser(prog="prorank")
    whole.add_argument("--version", action="store_true", help="print the version")
    commands = whole.add_subparsers(dest="command")
    for name, summary in COMMANDS.items():
        one = build_parser(name)
        one.description = None  # examples do not belong into a script
        _complete_files(one, shtab)
        commands.add_parser(name, help=summary, parents=[one], add_help=False, description=summary)
    return whole


def _complete_files(parser: argparse.ArgumentParser, shtab: object) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                _complete_files(child, shtab)
        elif action.metavar in ("FILE", "DIR"):
            action.complete = getattr(shtab, {"FILE": "FILE", "DIR": "DIRECTORY"}[action.metavar])  # type: ignore[attr-defined]
