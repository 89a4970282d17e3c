"""Whatever comes to the CDS service, it is refused as what it is and never breaks anything."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.policies.registry import make_policy
from agent.workflow.doubles import replay_kit
from api.cds.doubles import Signer, claims, hook, service_address, write_trust
from api.cds.keys import KeySetError, read_keys
from api.cds.tokens import TokenError, Tokens
from api.cds.trust import read_trust
from api.settings import Settings
from envs.toy import toy_evidence

ISS, HERE, NOW = "https://ehr.example.org", service_address("https://x.org"), datetime.now(UTC)
QUIET = settings(
    max_examples=60, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
NAMES = st.text(max_size=8)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
KINDS = ["Patient", "Bundle", "Observation", "Condition", "X"]
RESOURCE = st.fixed_dictionaries(
    {"resourceType": st.sampled_from(KINDS) | JSON},
    optional={"id": st.just("p1") | JSON, "entry": JSON, "code": JSON, "subject": JSON,
              "status": st.just("final") | JSON, "valueQuantity": JSON},
)  # fmt: skip
SOME_KEYS = st.lists(st.dictionaries(st.sampled_from(["kty", "kid", "crv", "x", "n"]), JSON))
HEADER = st.dictionaries(st.sampled_from(["alg", "kid", "typ", "jku", "crit"]), JSON)
SAID = st.dictionaries(st.sampled_from(["iss", "aud", "exp", "iat", "nbf", "jti"]), JSON)
BROUGHT = st.dictionaries(
    st.sampled_from(["patient", "conditions", "observations", "reports"]), RESOURCE | st.none()
)
ITEM = st.dictionaries(
    st.sampled_from(["card", "outcome", "overrideReason", "outcomeTimestamp"]), JSON
)


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer.make("ES384", "k")


@pytest.fixture(scope="module")
def tokens(signer: Signer, tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    return Tokens(read_trust(write_trust(tmp_path_factory.mktemp("trust"), signer, iss=ISS)))


def taken(tokens: Tokens, token: str) -> bool:
    """Whether it is taken; nothing but a refusal may come of it otherwise."""
    try:
        asyncio.run(tokens.check(token, (HERE,), NOW))
    except TokenError:
        return False
    return True


@QUIET
@given(text=st.text(max_size=80), dots=st.integers(0, 4))
def test_no_text_is_a_token(tokens: Tokens, text: str, dots: int) -> None:
    assert not taken(tokens, ".".join([text] * (dots + 1)))


@QUIET
@given(at=st.integers(0, 10_000), bit=st.integers(0, 6))
def test_no_changed_token_is_taken(tokens: Tokens, signer: Signer, at: int, bit: int) -> None:
    good = signer.token(claims(ISS, HERE, NOW))
    assert taken(tokens, good)
    at %= len(good)
    other = good[:at] + chr(ord(good[at]) ^ (1 << bit)) + good[at + 1 :]
    # The last letter of a part has bits that mean nothing.
    if good[at + 1 : at + 2] not in ("", "."):
        assert not taken(tokens, other)


def signed(signer: Signer, header: dict[str, Any], said: dict[str, Any]) -> str:
    """A token of whatever it is, with a good signature: no library would make it."""

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    message = ".".join(part(json.dumps(one).encode()) for one in (header, said))
    sign = jwt.get_algorithm_by_name("ES384").sign
    return f"{message}.{part(sign(message.encode(), signer.private))}"


@QUIET
@given(header=HEADER, said=SAID)
def test_no_odd_claims_are_taken(
    tokens: Tokens, signer: Signer, header: dict[str, Any], said: dict[str, Any]
) -> None:
    plain = {"alg": "ES384", "kid": "k", "typ": "JWT"}
    found = taken(tokens, signed(signer, {**plain, **header}, {**claims(ISS, HERE, NOW), **said}))
    # A number of the client's own choice is none of our business, and null is the same as nothing.
    harmless = {"jti", "nbf"} >= set(said) and {"jku"} >= set(header)
    assert harmless or not found


@QUIET
@given(data=JSON, keys=SOME_KEYS)
def test_no_odd_key_set_breaks_anything(data: Any, keys: list[Any]) -> None:
    curves = [{"kty": "EC", "crv": "P-384", "kid": "k", **key} for key in keys]
    for odd in (data, {"keys": keys}, {"keys": curves}):
        with pytest.raises(KeySetError):
            read_keys(odd)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from api.app import create_app

    folder: Path = tmp_path_factory.mktemp("cds")
    table = toy_evidence(n_patients=60, seed=3)
    app = create_app(
        Settings(bundle=folder, state=folder / "state", policy="never", cds_open=True),
        load=lambda s: replay_kit(table, make_policy=make_policy, policy=s.policy),
    )
    with asyncio.Runner() as runner:
        life = app.router.lifespan_context(app)
        runner.run(life.__aenter__())
        transport = httpx.ASGITransport(app)
        http = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")
        yield lambda path, body: runner.run(http.post(path, content=body))
        runner.run(http.aclose())
        runner.run(life.__aexit__(None, None, None))


@QUIET
@given(brought=BROUGHT)
def test_whatever_a_call_brings_is_read_or_refused(client: Any, brought: dict[str, Any]) -> None:
    body = json.dumps(hook("p1", "https://ehr.example.org/f", prefetch=brought))
    answer = client(service_address(""), body)
    assert answer.status_code in (200, 400, 412, 422), answer.text
    if answer.status_code == 200:
        assert answer.json() == {"cards": []}


@QUIET
@given(item=ITEM)
def test_odd_feedback_is_refused(client: Any, item: dict[str, Any]) -> None:
    good = {"card": "0" * 8 + "-0000-0000-0000-" + "0" * 12, "outcome": "overridden",
            "outcomeTimestamp": "2030-01-31T09:00:00Z"}  # fmt: skip
    answer = client(service_address("") + "/feedback", json.dumps({"feedback": [{**good, **item}]}))
    assert answer.status_code in (400, 404, 422), answer.text
