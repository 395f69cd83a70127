"""Several models: names, aliases, loading on first use, the memory bound."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from standin import StandIn

from prorank.scoring import Capabilities
from prorank.serve.app import create_app
from prorank.serve.config import ServeConfig
from prorank.serve.models import LazyModel

BODY = {"query": "q", "documents": ["a", "b c"]}


def sized(name: str, size: int) -> StandIn:
    one = StandIn(name)
    one.backend.capabilities = Capabilities(weights_bytes=size)
    return one


def loaded(http: Any) -> dict[str, bool]:
    return {one["id"]: one["loaded"] for one in http.get("/v1/models").json()["data"]}


def test_a_single_model_answers_to_any_name_and_says_who_it_is(serve: Any) -> None:
    http = serve(StandIn("mine"))
    answer = http.post("/v1/rerank", json=BODY | {"model": "jina-reranker-v2-base-multilingual"})
    assert answer.json()["model"] == "mine"
    assert answer.headers["x-prorank-model"] == "mine"


def test_a_single_model_can_be_strict(serve: Any) -> None:
    http = serve(StandIn("mine"), strict_models=True)
    assert http.post("/v2/rerank", json=BODY | {"model": "rerank-v3.5"}).status_code == 404
    assert http.post("/v2/rerank", json=BODY | {"model": "mine"}).status_code == 200
    assert http.post("/v2/rerank", json=BODY).status_code == 200


def test_several_models_by_name_and_alias(serve: Any) -> None:
    http = serve({"small": StandIn("s"), "large": StandIn("l")}, aliases=(("rerank-v3.5", "large"),))
    for asked, answered in ((None, "small"), ("small", "small"), ("large", "large"), ("rerank-v3.5", "large")):
        assert http.post("/v1/rerank", json=BODY | {"model": asked}).json()["model"] == answered
    unknown = http.post("/v1/rerank", json=BODY | {"model": "none such"})
    assert unknown.status_code == 404
    assert "small, large" in unknown.json()["detail"]
    assert "none such" not in unknown.text


def test_models_are_loaded_on_first_use_and_only_once(serve: Any) -> None:
    loads: list[str] = []

    def load() -> StandIn:
        loads.append("b")
        time.sleep(0.2)
        return StandIn("b")

    http = serve({"a": StandIn("a"), "b": load})
    assert loaded(http) == {"a": True, "b": False}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: http.post("/v1/rerank", json=BODY | {"model": "b"}), range(4)))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert loads == ["b"]
    assert loaded(http) == {"a": True, "b": True}


def test_ready_only_when_the_default_model_is_loaded_but_alive_before(serve: Any) -> None:
    go = threading.Event()

    def load() -> StandIn:
        go.wait(10)
        return StandIn("slow")

    http = serve({"slow": load})
    assert http.get("/health").status_code == 200
    assert http.get("/ready").status_code == 503
    go.set()
    deadline = time.monotonic() + 20
    while http.get("/ready").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_model_that_cannot_be_loaded_is_503_and_tried_again(serve: Any) -> None:
    attempts: list[int] = []

    def load() -> StandIn:
        attempts.append(1)
        if len(attempts) == 1:
            raise OSError("no such folder: /secret/path")
        return StandIn("b")

    http = serve({"a": StandIn("a"), "b": load})
    failed = http.post("/v1/rerank", json=BODY | {"model": "b"})
    assert failed.status_code == 503
    assert "secret" not in failed.text
    assert http.post("/v1/rerank", json=BODY | {"model": "b"}).status_code == 200


def test_the_least_recently_used_model_makes_room(serve: Any) -> None:
    models = {name: LazyModel(lambda name=name: sized(name, 40), 40) for name in "abc"}
    http = serve(models, max_model_bytes=100)
    for name in ("a", "b", "a", "c"):
        assert http.post("/v1/rerank", json=BODY | {"model": name}).status_code == 200
    assert loaded(http) == {"a": True, "b": False, "c": True}
    assert http.post("/v1/rerank", json=BODY | {"model": "b"}).status_code == 200
    assert loaded(http) == {"a": False, "b": True, "c": True}
    assert 'prorank_model_loaded{model="a"} 0.0' in http.get("/metrics").text


def test_a_model_in_use_is_never_dropped(serve: Any) -> None:
    busy = sized("a", 60)
    http = serve({"a": lambda: busy, "b": LazyModel(lambda: sized("b", 60), 60)}, max_model_bytes=100)
    assert http.post("/v1/rerank", json=BODY).status_code == 200
    busy.hold.clear()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(http.post, "/v1/rerank", json=BODY)
        while len(busy.calls) < 2:
            time.sleep(0.01)
        assert http.post("/v1/rerank", json=BODY | {"model": "b"}).status_code == 503
        busy.hold.set()
        assert waiting.result().status_code == 200
    assert http.post("/v1/rerank", json=BODY | {"model": "b"}).status_code == 200


def test_no_model_and_wrong_aliases_are_errors_at_start() -> None:
    with pytest.raises(ValueError, match="at least one"):
        create_app({})
    with pytest.raises(ValueError, match="'x' stands for 'nowhere'"):
        create_app(StandIn("a"), ServeConfig(aliases=(("x", "nowhere"),)))
