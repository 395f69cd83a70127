"""``prorank COMMAND``: finds the command's file, parses, runs, and turns errors into one line and exit code 2."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType

import prorank
from prorank._optional import said_plainly

__all__ = ["COMMANDS", "build_parser", "main"]

COMMANDS: dict[str, str] = {
    "rank": "rerank documents for a query",
    "score": "score millions of pairs in several processes or on a Ray cluster, in parts that survive a kill",
    "models": "list built-in models, template presets and the cache",
    "evaluate": "measure rerankers on a collection, with intervals, tests and cost",
    "compare": "compare finished evaluations with paired tests",
    "analyze": "how well a model understands the prompt, and how far apart its scores are",
    "data": "inspect or convert a collection; mine candidates and negatives; fuse runs",
    "train": "warm up, refine, evaluate and report in one command",
    "warmup": "stage 1: teach a base the relevance prompt with GRPO",
    "mine": "mine hard negatives, filtered by a model",
    "teach": "score candidates with a teacher, for distillation",
    "refine": "stage 2: teach a model to order documents finely",
    "average": "average adapters that were trained on one base",
    "calibrate": "fit probabilities to judged candidates",
    "cascade": "fit read-outs at early layers that stop documents far from the top",
    "export": "write a checkpoint for our own engine, OpenVINO, ONNX Runtime, llama.cpp or vLLM, with a parity report",
    "bench": "measure documents per second, latency, memory and the share of the machine's peak",
    "serve": "rerank over HTTP, in the formats of Cohere, Jina, Voyage, TEI and vLLM, with a page",
    "mcp": "tools of the Model Context Protocol: rerank documents and score pairs, over stdio or HTTP",
    "doctor": "versions, processor, engines, cache and a self-test: what works on this machine",
    "completion": "a script that completes commands and flags in bash, zsh or fish",
}
"""Command -> one-line summary; the code is in ``prorank.cli.COMMAND``."""


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser of the whole program, or of one command with all its flags."""
    if command is None:
        width = max(map(len, COMMANDS))
        listing = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items())
        parser = argparse.ArgumentParser(
            prog="prorank",
            description="Make and run small-language-model document rerankers.",
            epilog=f"commands:\n{listing}\n\nprorank COMMAND --help shows a command's flags.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("--version", action="version", version=f"prorank {prorank.__version__}")
        parser.add_argument("command", metavar="COMMAND", choices=COMMANDS)
        return parser
    module = _module(command)
    parser = argparse.ArgumentParser(
        prog=f"prorank {command}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; the exit code: 0 done, 2 bad input, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words:
        build_parser().print_help()
        return 2
    if words[0] not in COMMANDS:
        build_parser().parse_args(words[:1])  # --help, --version, or an error that lists the commands
        return 2
    command = words[0]
    parser = None
    try:
        parser = build_parser(command)
        args = parser.parse_args(words[1:])
        return int(_module(command).run(args))
    except KeyboardInterrupt:
        print(f"\nprorank {command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away: not an error of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, ImportError, TypeError, RuntimeError) as error:
        if os.environ.get("PRORANK_DEBUG"):
            raise
        message = _one_line(error)
        if parser is not None:
            from prorank.cli._flags import named_as_flag

            message = named_as_flag(message, parser)
        print(f"prorank {command}: error: {message}", file=sys.stderr)
        return 2


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"prorank.cli.{command}")


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, ImportError):
        return said_plainly(error)
    return str(error) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
