"""Hooks of Schemathesis: what a client would do that no schema can say."""

from __future__ import annotations

import re
import secrets
from typing import Any

import schemathesis


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """A new key for each request, the present version, and no stream that never ends."""
    headers = case.headers or {}
    for name in list(headers):
        value = str(headers[name])
        if name.lower() == "idempotency-key" and re.fullmatch(r"[!-~]{1,200}", value):
            headers[name] = secrets.token_hex(8)
        if name.lower() == "if-match" and re.fullmatch(r'"\d+"', value):
            headers[name] = "*"
    if case.path.endswith("/events"):
        case.query = {**(case.query or {}), "follow": "false"}
