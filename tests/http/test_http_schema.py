"""The OpenAPI schema, fuzzed: whatever fits it or breaks it, no 5xx, and answers are as it says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from standin import StandIn

from prorank.serve.app import create_app
from prorank.serve.config import ServeConfig

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is part of the group 'dev'")
from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

app = create_app({"fake": StandIn(), "other": StandIn("other")}, ServeConfig(strict_models=False))


async def kept_running(scope: Any, receive: Any, send: Any) -> None:
    """The app without its start and stop: the fuzzer would stop it after every request."""
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
    else:
        await app(scope, receive, send)


schema = schemathesis.openapi.from_asgi("/openapi.json", kept_running)


@schema.parametrize()
@settings(max_examples=40, deadline=5000, suppress_health_check=list(HealthCheck))
def test_schema(case: Any) -> None:
    """All of schemathesis' checks: no server error, status, type and shape as documented, bad data refused."""
    # What a schema cannot say: as many text_1 as text_2; one of the fields that rank_fields names in every object.
    related = case.path.endswith("score") or (isinstance(case.body, dict) and bool(case.body.get("rank_fields")))
    unsaid = [positive_data_acceptance] if related else []
    case.call_and_validate(excluded_checks=unsaid)


@pytest.fixture(scope="module", autouse=True)
def _stop() -> Any:
    yield
    app.service.close()


def test_every_route_is_described() -> None:
    described = app.openapi()
    assert set(described["paths"]) >= {
        "/v1/rerank",
        "/v2/rerank",
        "/voyage/v1/rerank",
        "/rerank",
        "/score",
        "/v1/score",
    }
    assert set(described["paths"]) >= {"/v1/models", "/health", "/ready", "/metrics"}
    text = json.dumps(described)
    for name in _references(described):
        assert name in described["components"]["schemas"], name
    assert "#/$defs" not in text


def _references(node: Any) -> set[str]:
    if isinstance(node, dict):
        found = {node["$ref"].rsplit("/", 1)[1]} if isinstance(node.get("$ref"), str) else set()
        return found.union(*(_references(value) for value in node.values()))
    if isinstance(node, list):
        return set().union(*map(_references, node))
    return set()
