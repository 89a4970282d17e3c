"""What the server writes to its log: never a feature value, a patient's id or a key."""

from __future__ import annotations

import logging
import traceback
from types import TracebackType
from typing import Any


class PlaceOnly(logging.Formatter):
    """Formats an exception as its type and where it happened, without its words.

    Messages of errors repeat what came in (a value that does not fit, a body that cannot be
    read): that may be a patient's data, so the log gets the place only.
    """

    def formatException(  # noqa: N802  # the name is logging's
        self,
        ei: (
            tuple[type[BaseException], BaseException, TracebackType | None]
            | tuple[None, None, None]
        ),
    ) -> str:
        """Type and frames."""
        kind, _, trace = ei
        frames = traceback.extract_tb(trace) if trace is not None else []
        lines = [f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
        return "\n".join([f"{kind.__name__ if kind else 'error'}; raised at", *lines])


def log_config(level: str = "INFO") -> dict[str, Any]:
    """Logging for uvicorn and greenboard: one line a record on standard error, no access log.

    An access log would hold addresses, and those hold case ids; the metrics count requests.
    """
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "plain": {
                "()": "api.logs.PlaceOnly",
                "format": "%(asctime)s %(levelname)s %(name)s %(message)s",
            }
        },
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "plain",
                "stream": "ext://sys.stderr",
            }
        },
        "loggers": {
            "uvicorn": {"handlers": ["stderr"], "level": level, "propagate": False},
            "uvicorn.access": {"handlers": [], "level": "CRITICAL", "propagate": False},
            "greenboard": {"handlers": ["stderr"], "level": level, "propagate": False},
        },
    }
