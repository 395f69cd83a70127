"""Structured logs: one JSON object a line on stderr, with the request's id; never keys, queries or texts."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback

__all__ = ["JsonFormatter", "setup_logging"]

FIELDS = (
    "request_id", "method", "route", "status", "seconds", "queue_seconds", "model", "documents", "tokens", "truncated",
    "error", "where", "host", "port", "models",
)  # fmt: skip
"""What a record may carry beside its message; anything else is left out on purpose."""


class JsonFormatter(logging.Formatter):
    """A record as one JSON line. Exceptions appear as type and places in the code: their messages may quote texts."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({name: getattr(record, name) for name in FIELDS if hasattr(record, name)})
        if record.exc_info and record.exc_info[0] is not None:
            line.setdefault("error", record.exc_info[0].__name__)
            line["where"] = places(record.exc_info[2])
        return json.dumps(line, ensure_ascii=False, default=str)


def places(trace: object) -> list[str]:
    """``file:line function`` of the innermost frames of a traceback."""
    frames = traceback.extract_tb(trace)[-4:]  # type: ignore[arg-type]
    return [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in frames]


def setup_logging(level: str = "info") -> None:
    """Send the server's and uvicorn's records to stderr as JSON lines. Called by the command, never at import."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name in ("prorank", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler] if name != "uvicorn.error" else []
        logger.propagate = name == "uvicorn.error"
        logger.setLevel(level.upper())
