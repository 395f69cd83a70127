"""The examples for search engines, each against the engine itself where it installs: candidates in, the same order out
as the reranker gives them, and written back."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from prorank import Reranker
from testkit.scripts import script
from testkit.search_server import SearchServer

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
QUERY = "how do vaccines create immunity"
PASSAGES: list[dict[str, str]] = [
    json.loads(line) for line in (EXAMPLES / "passages.jsonl").read_text("utf-8").splitlines()
]
TEXTS = {passage["_id"]: passage["text"] for passage in PASSAGES}


def example(name: str, *libraries: str) -> ModuleType:
    for library in libraries:
        pytest.importorskip(library, reason=f"{library} is not installed: see examples/engines/{name}.py")
    return script(EXAMPLES / "engines" / f"{name}.py", f"example_{name}")


def check(found: list[tuple[str, float]], reranker: Reranker, candidates: set[str]) -> None:
    """The best five of the candidates, by the margins that the reranker gives them."""
    margins = {i: float(reranker.margins(QUERY, [TEXTS[i]])[0]) for i in candidates}
    wanted = sorted(margins, key=lambda i: -margins[i])[:5]
    assert [i for i, _ in found] == wanted
    assert [margin for _, margin in found] == pytest.approx([margins[i] for i in wanted], abs=1e-5)


def with_words(*words: str) -> set[str]:
    """Ids of the passages that hold one of the words, as the engine's first stage must have found them."""
    found = {i for i, text in TEXTS.items() if any(word in text.lower() for word in words)}
    assert len(found) > 2
    return found


def test_qdrant(fake_reranker: Reranker) -> None:
    module = example("qdrant", "qdrant_client")
    client = module.QdrantClient(":memory:")
    module.fill(client, PASSAGES)
    points = client.query_points("passages", query=module.vector(QUERY), using="words", limit=100).points
    candidates = {point.payload["_id"] for point in points}
    assert candidates >= with_words("vaccines", "create", "immunity")
    check(module.search(client, fake_reranker, QUERY), fake_reranker, candidates)


def test_lancedb(fake_reranker: Reranker, tmp_path: Path) -> None:
    module = example("lancedb_table", "lancedb", "pyarrow")
    table = module.fill(str(tmp_path / "db"), PASSAGES)
    candidates = {row["id"] for row in table.search(QUERY, query_type="fts").limit(100).to_list()}
    assert candidates >= with_words("vaccines", "create", "immunity")
    check(module.search(table, fake_reranker, QUERY), fake_reranker, candidates)


def test_duckdb(fake_reranker: Reranker) -> None:
    module = example("duckdb_table", "duckdb", "bm25s")
    db = module.duckdb.connect(":memory:")
    index = module.fill(db, EXAMPLES / "passages.jsonl")
    found = module.search(db, index, fake_reranker, QUERY)
    written = {i for (i,) in db.execute("SELECT id FROM scored").fetchall()}
    assert written >= with_words("vaccines", "create", "immunity")
    check([(i, float(margin)) for i, margin in found], fake_reranker, written)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """A server of the test's own, over a Unix socket; its address."""
    paths = [os.environ.get("PATH", ""), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))]
    initdb, control = (shutil.which(name, path=os.pathsep.join(paths)) for name in ("initdb", "pg_ctl"))
    if initdb is None or control is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    user: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    if os.geteuid() == 0:  # it refuses to run as root
        try:
            account = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
        user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    try:
        settings = ["-U", "prorank", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        quiet: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
        subprocess.run([initdb, "-D", str(folder / "data"), *settings], **quiet, **user)
        options = f"-c listen_addresses= -c fsync=off -k {folder}"
        command = [control, "-D", str(folder / "data"), "-w", "-l", str(folder / "log")]
        subprocess.run([*command, "-o", options, "start"], **quiet, **user)
        try:
            yield f"host={folder} user=prorank dbname=postgres"
        finally:
            subprocess.run([*command, "-m", "immediate", "stop"], **quiet, **user)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_postgres(fake_reranker: Reranker, request: pytest.FixtureRequest) -> None:
    module = example("postgres", "psycopg")
    with module.psycopg.connect(request.getfixturevalue("postgres")) as db:
        module.fill(db, PASSAGES)
        candidates = {i for i, _ in db.execute(module.CANDIDATES, [QUERY]).fetchall()}
        assert candidates >= with_words("vaccine")
        check(module.search(db, fake_reranker, QUERY), fake_reranker, candidates)


def test_opensearch_over_http(fake_reranker: Reranker) -> None:
    """The official client over a socket; the engine behind it is a stand-in."""
    module = example("opensearch", "opensearchpy")
    server = SearchServer()
    try:
        client = module.OpenSearch(server.url)
        module.fill(client, PASSAGES)
        assert {i: source["text"] for i, source in server.indices["passages"].items()} == TEXTS
        found = module.search(client, fake_reranker, QUERY)
        scored = server.indices["passages-scored"].values()
        assert {row["query"] for row in scored} == {QUERY}
        candidates = {row["id"] for row in scored}
        assert candidates >= with_words("vaccines")
        check(found, fake_reranker, candidates)
    finally:
        server.stop()
