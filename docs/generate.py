"""Write what the code already knows into the documentation: command line and settings.

    python docs/generate.py               # rewrite what is out of date (make docs)
    python docs/generate.py --check       # exit code 1 where something is (a test does this)
    python docs/generate.py --examples    # also run README's example and put its real output there

Whole files: `docs/reference/cli.md` from the argument parsers, `docs/reference/settings.md` from the settings classes,
`docs/llms.txt` from the pages' first lines.
It runs no model, unless asked for the examples. Measured tables are `python -m benchmarks.tables`'s.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
SOURCES = REPO / "src" / "prorank"
NOTE = "<!-- Written by docs/generate.py; change the code and run make docs. -->\n\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say what is out of date")
    parser.add_argument("--examples", action="store_true", help="run README's example (needs the built-in model)")
    args = parser.parse_args()
    stale = []
    for path, text in pages(examples=args.examples).items():
        if path.is_file() and path.read_text("utf-8") == text:
            continue
        stale.append(path.relative_to(REPO).as_posix())
        if not args.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    for name in stale:
        print(f"{name} {'is out of date: run make docs' if args.check else 'written'}")
    return 1 if args.check and stale else 0


def pages(*, examples: bool = False) -> dict[Path, str]:
    """Path -> what it should hold."""
    readme = REPO / "README.md"
    text = readme.read_text("utf-8")
    engines = REPO / "docs" / "engines.md"
    return {
        REPO / "docs" / "reference" / "cli.md": cli_page(),
        REPO / "docs" / "reference" / "settings.md": settings_page(),
        REPO / "docs" / "llms.txt": llms_page(),
        engines: _filled(engines.read_text("utf-8"), "tolerances", tolerance_table()),
        readme: with_example(text) if examples else text,
    }


# ---- command line


def cli_page() -> str:
    """Every command, its description and its flags, from the parsers themselves."""
    from prorank.cli.main import COMMANDS, build_parser

    parts = [NOTE + "# Command line\n", "| command | what it does |", "|---|---|"]
    parts += [f"| [`prorank {name}`](#prorank-{name}) | {summary} |" for name, summary in COMMANDS.items()]
    parts += [
        "",
        "Exit codes: 0 done, 2 bad input (one line on stderr says which flag or file), 130 interrupted.",
        "`PRORANK_DEBUG=1` shows the whole traceback, `PRORANK_CACHE` moves the cache. Settings with a dot are",
        "explained in [settings.md](settings.md).",
    ]
    for name in COMMANDS:
        parser = build_parser(name)
        parts += ["", f"## prorank {name}", "", *_parser_lines(parser)]
    return "\n".join(parts) + "\n"


def _parser_lines(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield from _description(parser.description or "")
    for group in parser._action_groups:
        subparsers = [a for a in group._group_actions if isinstance(a, argparse._SubParsersAction)]
        flags = [a for a in group._group_actions if a not in subparsers and a.dest != "help"]
        dotted = [a for a in flags if any("." in option for option in a.option_strings)]
        plain = [a for a in flags if a not in dotted]
        if plain:
            title = {"options": "", "positional arguments": ""}.get(group.title or "", group.title or "")
            yield from ["", *([f"*{title}*", ""] if title else []), "| flag | meaning |", "|---|---|"]
            for action in plain:
                yield f"| {_flag(action)} | {_cell(_help(parser, action))} |"
        if dotted:
            yield from ["", f"*{_cell(group.title or '')}*: one flag a field, see [settings.md](settings.md)."]
        for sub in subparsers:
            for name, child in sub.choices.items():
                yield from ["", f"### {parser.prog} {name}", "", *_parser_lines(child)]


def _description(text: str) -> Iterator[str]:
    """Prose as it is; lines that are commands as code."""
    for block in textwrap.dedent(text).strip().split("\n\n"):
        lines = block.splitlines()
        if any(re.match(r"\s*(prorank|cat|python|curl) ", line) for line in lines):
            yield from ["```", *(line.strip() for line in lines), "```", ""]
        else:
            yield from [*lines, ""]


def _flag(action: argparse.Action) -> str:
    names = action.option_strings or [action.metavar or action.dest]
    value = ""
    if action.nargs != 0 and action.option_strings:
        value = " " + (str(action.metavar) if action.metavar else _choices(action) or action.dest.upper())
    return ", ".join(f"`{_cell(name + value)}`" for name in map(str, names))


def _choices(action: argparse.Action) -> str:
    return "{" + ",".join(map(str, action.choices)) + "}" if action.choices else ""


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    text = (action.help or "") % {**vars(action), "prog": parser.prog}
    return f"{text} (required)" if action.required and action.option_strings else text


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


# ---- settings


def settings_page() -> str:
    """Every settings class, training run and the load options: field, type, default, meaning."""
    parts = [NOTE + "# Settings\n"]
    parts.append(
        "Fields of the settings classes. `warmup` takes them as flags (`--warmup.steps 100`) or from a TOML or YAML\n"
        "file (`--config`, table `[warmup]`), other stages likewise under their names; `serve` has a flag\n"
        "of the same name with dashes. A `...Run` is what training takes from Python, and its commands as flags;\n"
        "`LoadOptions` is what `Reranker.from_pretrained` takes, and every command that loads a model."
    )
    for cls in settings_classes():
        docs = _attribute_docs(cls)
        parts += ["", f"## {cls.__name__}", "", f"`{cls.__module__}`. {_first_paragraph(cls)}", ""]
        parts += ["| field | type | default | meaning |", "|---|---|---|---|"]
        for field in dataclasses.fields(cls):
            kind = _cell(str(field.type))
            meaning = _cell(docs.get(field.name, ""))
            parts.append(f"| `{field.name}` | `{kind}` | {_default(field)} | {meaning} |")
    return "\n".join(parts) + "\n"


def settings_classes() -> list[type]:
    """Found by reading the sources, so that a new one is not forgotten; a base class comes inside what extends it."""
    found: dict[str, type] = {}
    for path in sorted(SOURCES.rglob("*.py")):
        names = re.findall(r"^class (\w+(?:Config|Run)|LoadOptions)\b", path.read_text("utf-8"), re.MULTILINE)
        if not names:
            continue
        module = importlib.import_module(".".join(("prorank", *path.relative_to(SOURCES).with_suffix("").parts)))
        found |= {f"{module.__name__}.{name}": getattr(module, name) for name in names}
    settings = [cls for cls in found.values() if dataclasses.is_dataclass(cls)]
    extended = {base for cls in settings for base in cls.__mro__[1:]}
    return [cls for cls in settings if cls not in extended]


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{_cell(repr(field.default))}`"
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
        return f"`{type(value).__name__}()`" if dataclasses.is_dataclass(value) else f"`{_cell(repr(value))}`"
    return "needed"


def _first_paragraph(cls: type) -> str:
    return " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())


def _attribute_docs(cls: type) -> dict[str, str]:
    """Field -> the docstring under it, in the class or one it extends."""
    found: dict[str, str] = {}
    for part in reversed([c for c in cls.__mro__ if dataclasses.is_dataclass(c)]):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(part))).body
        assert isinstance(tree, ast.ClassDef)
        last = ""
        for statement in tree.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                last = statement.target.id
            elif last and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                found[last] = str(statement.value.value)
    return found


# ---- for language models


def llms_page() -> str:
    """Every page of docs/ in the site's order, with its first sentence (llmstxt.org)."""
    spec = importlib.util.spec_from_file_location("docs_build_site", REPO / "docs" / "build_site.py")
    assert spec is not None
    assert spec.loader is not None
    site = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(site)
    parts = ["# ProRank\n", "> Train, judge, run and serve small-language-model document rerankers.\n"]
    for caption, names in site.CONTENTS.items():
        there = [name for name in names if (REPO / "docs" / name).is_file()]
        if there:
            parts += [f"## {caption}\n", *(_page_line(name) for name in there), ""]
    return "\n".join(parts)


def _page_line(name: str) -> str:
    text = re.sub(r"<!--.*?-->", "", (REPO / "docs" / name).read_text("utf-8"), flags=re.DOTALL)
    title, _, rest = text.strip().partition("\n")
    prose = next((part for part in rest.split("\n\n") if re.match(r"\s*[A-Z`]", part) and "```" not in part), "")
    plain = " ".join(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", prose).split())
    first = re.split(r"(?<=[.!?])\s", plain, maxsplit=1)[0]
    return f"- [{title.removeprefix('# ')}]({name}){': ' + first if first else ''}"


# ---- README


def with_example(text: str) -> str:
    """README's first Python example, run, and what it printed put behind it."""
    found = re.search(r"<!-- example -->\n```python\n(.*?)```", text, re.DOTALL)
    if found is None:
        raise SystemExit("README.md: no <!-- example --> with a python block")
    done = subprocess.run(
        [sys.executable, "-c", found.group(1)],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    return _filled(text, "output", f"```\n{done.stdout.rstrip()}\n```")


def tolerance_table() -> str:
    """What every engine keeps."""
    from prorank.backends.tolerances import table

    return "\n".join(table())


def _filled(text: str, start: str, content: str) -> str:
    pattern = re.compile(rf"(<!-- {start} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"the page: <!-- {start} --> has no <!-- end -->")
    return pattern.sub(lambda match: f"{match.group(1)}{content}\n{match.group(2)}", text)


if __name__ == "__main__":
    sys.exit(main())
