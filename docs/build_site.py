"""Build the documentation as a site in build/site: lay its pages out, then run Sphinx. A link that leads nowhere fails.

    python docs/build_site.py             # make docs
    python docs/build_site.py --run       # also runs the notebooks and shows what they print (minutes)

Pages are docs/*.md, README and its siblings, the notebooks, and the Python API from its docstrings. Links are written
for readers of the repository; here those that leave docs/ are led to what the site has in their place. Beside every
page lies its Markdown, which `llms.txt` lists and `llms-full.txt` joins.
"""

from __future__ import annotations

import argparse
import base64
import json
import posixpath
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
DOCS = REPO / "docs"
NOTEBOOKS = {path.relative_to(REPO).as_posix(): path for path in sorted((REPO / "examples/notebooks").glob("*.ipynb"))}
PLACES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    **{name: f"notebooks/{path.stem}.md" for name, path in NOTEBOOKS.items()},
}
"""A path of the repository outside docs/ -> the page that it is on the site."""
CONTENTS = {
    "Tutorials": ["tutorials/rerank.md", "tutorials/train.md", "tutorials/report.md", "tutorials/serve.md",
                  "scaling.md"],
    "Notebooks": [PLACES[name] for name in NOTEBOOKS],
    "How to": ["evaluation.md", "warmup.md", "refine.md", "engines.md", "serving.md", "clients.md",
               "integrations.md", "data.md"],
    "Reference": ["reference/cli.md", "reference/settings.md", "reference/api.md", "reference/api-training.md",
                  "reference/api-parts.md"],
    "Background": ["architecture.md", "paper.md", "results.md", "performance.md", "model-card.md", "LOG.md"],
    "Project": ["contributing.md", "changelog.md"],
}  # fmt: skip
"""The site's order; a page of docs/ that is missing here fails the build."""
API = {
    "reference/api.md": (
        "Python",
        "Everything in `prorank.__all__`, the public API. [CONTRIBUTING](../contributing.md#versions) says how it may "
        "change.",
        ["Reranker", "RankResult", "ranking.Ranking", "Document", "PromptTemplate", "Client", "AsyncClient", "TrainRun",
         "train"],
    ),
    "reference/api-training.md": (
        "Training from Python",
        "One stage at a time; `train` of [the public API](api.md) does both. [Settings](settings.md) explains the "
        "fields.",
        ["pipeline.warmup.WarmupRun", "pipeline.warmup.warmup", "pipeline.refine.RefineRun", "pipeline.refine.refine"],
    ),
    "reference/api-parts.md": (
        "Components",
        "Parts of other frameworks, the server as an application, and the protocol of an engine.",
        ["integrations.langchain.ProRankReranker", "integrations.llamaindex.ProRankRerank",
         "integrations.haystack.ProRankRanker", "serve.app.create_app", "scoring.Backend", "scoring.Capabilities"],
    ),
}  # fmt: skip
"""Page -> title, first paragraph, names below ``prorank``."""
_LINK = re.compile(r"(\]\()([^)#\s]+)(#[^)\s]*)?(\))")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=REPO / "build" / "site", help="(default: build/site)")
    parser.add_argument("--run", action="store_true", help="run the notebooks and show what they print")
    args = parser.parse_args(arguments)
    from sphinx.cmd.build import main as sphinx

    laid_out = args.out.with_name(f"{args.out.name}-pages")
    shutil.rmtree(laid_out, ignore_errors=True)
    shutil.rmtree(args.out, ignore_errors=True)
    shown = pages(run=args.run)
    write(shown, laid_out)
    code = sphinx(["-q", "-W", "--keep-going", "-c", str(DOCS), "-d", f"{laid_out}/.doctrees", str(laid_out),
                   str(args.out)])  # fmt: skip
    if code == 0:
        write({name: text for name, text in shown.items() if isinstance(text, str)}, args.out)
        shutil.copy(DOCS / "llms.txt", args.out)
        everything = [text for text in shown.values() if isinstance(text, str)]
        (args.out / "llms-full.txt").write_text("\n\n".join(everything), "utf-8")
        print(f"{args.out}/index.html")
    return int(code)


def write(shown: Mapping[str, str | Path], folder: Path) -> None:
    """Texts are written, files copied."""
    for name, content in shown.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copy(content, folder / name)
        else:
            (folder / name).write_text(content, "utf-8")


def pages(*, run: bool = False) -> dict[str, str | Path]:
    """Path on the site -> Markdown, or the file that lies there."""
    texts = {path.relative_to(DOCS).as_posix(): path.read_text("utf-8") for path in sorted(DOCS.rglob("*.md"))}
    for name, page in PLACES.items():
        texts[page] = notebook(NOTEBOOKS[name], run=run) if name in NOTEBOOKS else (REPO / name).read_text("utf-8")
    found: dict[str, str | Path] = {path.relative_to(DOCS).as_posix(): path for path in DOCS.glob("images/*")}
    for page, text in texts.items():
        targets = {path_of(page, target) for _, target, _, _ in _LINK.findall(text) if not is_elsewhere(target)}
        found |= {placed(path): REPO / path for path in targets if is_other_file(path)}
        found[page] = _LINK.sub(lambda link, page=page: led(link, page), text)  # type: ignore[misc]
    found["index.md"] = f"{found['index.md']}\n{contents(texts)}"
    return found | {page: api_page(*parts) for page, parts in API.items()}


def is_elsewhere(target: str) -> bool:
    return target.startswith(("http:", "https:", "mailto:"))


def is_other_file(path: str) -> bool:
    """Whether a path of the repository is a file that is neither a page nor in docs/."""
    return path not in PLACES and not path.startswith("docs/") and (REPO / path).is_file()


def path_of(page: str, target: str) -> str:
    """The repository's path that a page's link means."""
    origin = next((name for name, place in PLACES.items() if place == page), f"docs/{page}")
    return posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))


def placed(path: str) -> str:
    """Where the site has a path of the repository."""
    return (
        PLACES[path] if path in PLACES else path.removeprefix("docs/") if path.startswith("docs/") else f"files/{path}"
    )


def led(link: re.Match[str], page: str) -> str:
    """A Markdown link, led to what the site has."""
    opened, target, anchor, closed = link.groups(default="")
    if not is_elsewhere(target):
        target = posixpath.relpath(placed(path_of(page, target)), posixpath.dirname(page) or ".")
    return f"{opened}{target}{anchor}{closed}"


def contents(texts: Mapping[str, str]) -> str:
    """The hidden tables of contents behind the first page."""
    there = {*texts, *API}
    parts = []
    for caption, names in CONTENTS.items():
        lines = "\n".join(name for name in names if name in there)
        parts.append(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{lines}\n```\n")
    return "\n".join(parts)


def api_page(title: str, first: str, names: Sequence[str]) -> str:
    """A page that autodoc fills."""
    parts = [f"# {title}\n\n{first}\n"]
    for name in names:
        kind = "class" if name.rpartition(".")[2][0].isupper() else "function"
        parts.append(f"## {name.rpartition('.')[2]}\n\n```{{eval-rst}}\n.. auto{kind}:: prorank.{name}\n```\n")
    return "\n".join(parts)


def notebook(path: Path, *, run: bool) -> str:
    """A notebook as Markdown; with what its cells print, if it is to run."""
    cells: list[Any] = json.loads(path.read_text("utf-8"))["cells"]
    if run:
        import nbformat
        from nbclient import NotebookClient

        client = NotebookClient(nbformat.read(path, 4), resources={"metadata": {"path": str(REPO)}})  # type: ignore[no-untyped-call]
        cells = client.execute()["cells"]
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        parts += [output(one) for one in cell.get("outputs", [])]
    return "\n\n".join([*parts, f"Run it yourself: `{path.relative_to(REPO)}`.\n"])


def output(one: Mapping[str, Any]) -> str:
    """What a cell gave: a picture, HTML or text."""
    data: Mapping[str, Any] = one.get("data", {})
    if "image/svg+xml" in data:
        drawn = base64.b64encode("".join(data["image/svg+xml"]).encode()).decode()
        return f'<img alt="" src="data:image/svg+xml;base64,{drawn}">'
    if "text/html" in data:
        return "".join(data["text/html"])
    text = "".join(one.get("text", data.get("text/plain", "")))
    return f"```text\n{text.rstrip()}\n```" if text.strip() else ""


if __name__ == "__main__":
    sys.exit(main())
