"""Whose calls the CDS service takes: every way in which a token can be wrong is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from api.cds.desk import open_desk
from api.cds.doubles import Signer, claims, hook, service_address, write_trust
from api.cds.keys import CACHE_S, REFETCH_S, RETRY_S, KeySetError, KeyStore, read_keys
from api.cds.tokens import LEEWAY, MAX_LIFETIME, TokenError, Tokens
from api.cds.trust import Issuer, read_trust
from api.errors import SettingsError
from api.settings import Settings

PUBLIC, ISS = "https://greenboard.example.org", "https://ehr.example.org"
HERE = service_address(PUBLIC)
NOW = datetime(2030, 1, 31, 9, tzinfo=UTC)


@pytest.fixture(scope="module")
def signers() -> dict[str, Signer]:
    return {name: Signer.make(name, f"key-{name}") for name in ("ES384", "RS384")}  # type: ignore[arg-type]


@pytest.fixture
def tokens(signers: dict[str, Signer], tmp_path: Path) -> Tokens:
    return Tokens(read_trust(write_trust(tmp_path, *signers.values(), iss=ISS)))


def said(**changes: Any) -> dict[str, Any]:
    """Good claims, changed; None takes one out."""
    known = {**claims(ISS, HERE, NOW), **changes}
    return {name: value for name, value in known.items() if value is not None}


async def refusal(tokens: Tokens, token: str) -> str:
    with pytest.raises(TokenError) as caught:
        await tokens.check(token, (HERE,), NOW)
    return str(caught.value)


@pytest.fixture
def run() -> Iterator[Callable[..., Any]]:
    import asyncio

    with asyncio.Runner() as runner:
        yield runner.run


@pytest.mark.parametrize("algorithm", ["ES384", "RS384"])
@pytest.mark.parametrize("audience", [HERE, [HERE]])
def test_good_tokens_are_taken(run, tokens, signers, algorithm, audience) -> None:
    token = signers[algorithm].token(said(aud=audience))
    proof = run(tokens.check(token, (HERE,), NOW))
    assert proof.issuer.iss == ISS
    assert proof.until == NOW + timedelta(minutes=5) + LEEWAY
    assert len(proof.number) == 64


BAD_CLAIMS = {
    "another issuer": ({"iss": "https://other.example.org"}, "iss"),
    "another service": ({"aud": HERE + "/x"}, "aud"),
    "the server only": ({"aud": PUBLIC}, "aud"),
    "a slash more": ({"aud": HERE + "/"}, "aud"),
    "several audiences": ({"aud": [HERE, "https://elsewhere.example.org"]}, "aud"),
    "no audience": ({"aud": None}, "aud"),
    "out of date": ({"iat": NOW.timestamp() - 400, "exp": NOW.timestamp() - 100}, "exp"),
    "no end": ({"exp": None}, "exp"),
    "an end in words": ({"exp": "tomorrow"}, "exp"),
    "an end without end": ({"exp": 1e300}, "exp"),
    "no beginning": ({"iat": None}, "iat"),
    "a truth for a time": ({"iat": True}, "iat"),
    "no number": ({"jti": None}, "jti"),
    "an empty number": ({"jti": ""}, "jti"),
    "a number that is none": ({"jti": 7}, "jti"),
}


@pytest.mark.parametrize("name", BAD_CLAIMS)
def test_wrong_claims_are_refused(run, tokens, signers, name) -> None:
    changes, word = BAD_CLAIMS[name]
    token = signers["ES384"].token(said(**changes))
    assert word in run(refusal(tokens, token))


def test_times_are_kept_narrowly(run, tokens, signers) -> None:
    def at(iat: timedelta, exp: timedelta, **more: Any) -> str:
        times = {"iat": (NOW + iat).timestamp(), "exp": (NOW + exp).timestamp()}
        return signers["ES384"].token(said(**times, **more))

    second = timedelta(seconds=1)
    run(tokens.check(at(LEEWAY, LEEWAY + MAX_LIFETIME), (HERE,), NOW))
    run(tokens.check(at(-MAX_LIFETIME - LEEWAY + second, second - LEEWAY), (HERE,), NOW))
    assert "future" in run(refusal(tokens, at(LEEWAY + second, LEEWAY + MAX_LIFETIME)))
    assert "lives too long" in run(refusal(tokens, at(-second, MAX_LIFETIME)))
    assert "lives too long" in run(refusal(tokens, at(second, -second)))
    assert "out of date" in run(refusal(tokens, at(-MAX_LIFETIME, -LEEWAY)))
    later = (NOW + timedelta(minutes=2)).timestamp()
    assert "future" in run(refusal(tokens, at(-second, second, nbf=later)))


def _part(value: Any) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def _by_hand(header: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
    message = f"{_part(header)}.{_part(said())}"
    return f"{message}.{_part(sign(message.encode()))}"


def test_no_other_algorithm_is_taken(run, tokens, signers) -> None:
    rsa_key = signers["RS384"].private
    pem = rsa_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    kid = {"kid": "key-RS384", "typ": "JWT"}
    forged = {
        "none": _by_hand({"alg": "none", **kid}, lambda m: b""),
        "None": _by_hand({"alg": "None", **kid}, lambda m: b""),
        # The classic: the public key taken for a shared secret.
        "HS384": _by_hand({"alg": "HS384", **kid}, lambda m: hmac.digest(pem, m, "sha384")),
        "RS256": jwt.encode(said(), rsa_key, algorithm="RS256", headers=kid),
        "PS384": jwt.encode(said(), rsa_key, algorithm="PS384", headers=kid),
        "ES256": jwt.encode(
            said(), ec.generate_private_key(ec.SECP256R1()), algorithm="ES256", headers=kid
        ),
        "missing": _by_hand(kid, lambda m: hashlib.sha384(m).digest()),
    }
    for token in forged.values():
        assert "alg" in run(refusal(tokens, token))


def test_a_key_serves_its_own_algorithm_only(run, tokens, signers) -> None:
    es, rs = signers["ES384"], signers["RS384"]
    assert "kid" in run(refusal(tokens, es.token(said(), kid=rs.kid)))
    assert "kid" in run(refusal(tokens, rs.token(said(), kid=es.kid)))
    assert "kid" in run(refusal(tokens, es.token(said(), kid="nobody")))


def test_strangers_signatures_are_refused(run, tokens, signers) -> None:
    stranger = Signer.make("ES384", signers["ES384"].kid)
    assert "signature" in run(refusal(tokens, stranger.token(said())))
    good = signers["ES384"].token(said())
    head, _, tail = good.split(".")
    other = _part(said(jti="another"))
    assert "signature" in run(refusal(tokens, f"{head}.{other}.{tail}"))
    # A key inside the token is never looked at.
    with_key = stranger.token(said(), jwk=stranger.jwk)
    assert "signature" in run(refusal(tokens, with_key))


def test_headers_that_change_the_meaning_are_refused(run, tokens, signers) -> None:
    es = signers["ES384"]
    for header, word in (
        ({"crit": ["exp"]}, "no signed"),
        ({"typ": "at+jwt"}, "typ"),
        ({"jku": "https://elsewhere.example.org/jwks.json"}, "jku"),
        ({"jku": ISS + "/jwks.json"}, "jku"),
    ):
        assert word in run(refusal(tokens, es.token(said(), **header)))
    no_kid = jwt.encode(said(), es.private, algorithm="ES384")
    assert "kid" in run(refusal(tokens, no_kid))


@pytest.mark.parametrize("token", ["", "a", "a.b", "a.b.c", "..", "é.é.é", "[].[].[]", "x" * 9000,
                                   "eyJhbGciOiJFUzM4NCJ9.W10.", "[" * 3000])  # fmt: skip
def test_what_is_no_token_is_refused(run, tokens, token) -> None:
    assert run(refusal(tokens, token))


def test_weak_and_private_keys_are_not_used(signers) -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    small = Signer(kid="weak", algorithm="RS384", private=weak).jwk
    algorithm: Any = jwt.get_algorithm_by_name("ES384")
    p256 = json.loads(algorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key()))
    private = json.loads(algorithm.to_jwk(signers["ES384"].private))
    good = signers["ES384"].jwk
    for bad in (
        small,
        {**p256, "kid": "p256"},
        {**private, "kid": "private"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"},
        {**good, "use": "enc"},
        {**good, "alg": "HS384"},
        {name: value for name, value in good.items() if name != "kid"},
        {**good, "x": "AA"},
        "text",
    ):
        assert len(read_keys({"keys": [bad, {**good, "kid": "good"}]})) == 1
        with pytest.raises(KeySetError, match="No key"):
            read_keys({"keys": [bad]})
    with pytest.raises(KeySetError, match="same kid"):
        read_keys({"keys": [good, good]})
    for junk in (None, [], {}, {"keys": {}}, {"keys": [good] * 60}):
        with pytest.raises(KeySetError):
            read_keys(junk)


class _Publisher(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        status, headers, body = self.server.answer  # type: ignore[attr-defined]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def publishing(*keys: dict[str, Any]) -> Iterator[Any]:
    server: Any = HTTPServer(("127.0.0.1", 0), _Publisher)
    server.asked, server.url = [], f"http://127.0.0.1:{server.server_port}/jwks.json"
    server.answer = (200, {}, json.dumps({"keys": list(keys)}).encode())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_published_keys_are_fetched_once_and_again_when_they_change(run, signers) -> None:
    import asyncio

    es, rs = signers["ES384"], signers["RS384"]
    now_s = [0.0]
    with publishing(es.jwk) as server:
        store = KeyStore(Issuer(iss=ISS, jku=server.url), monotonic=lambda: now_s[0])

        async def many() -> list[Any]:
            return await asyncio.gather(*(store.find(es.kid, "ES384") for _ in range(20)))

        assert all(key is not None for key in run(many()))
        assert len(server.asked) == 1
        # An unknown key may be new, but strangers cannot make us ask again and again.
        server.answer = (200, {}, json.dumps({"keys": [rs.jwk]}).encode())
        assert run(store.find(rs.kid, "RS384")) is None
        assert len(server.asked) == 1
        now_s[0] = REFETCH_S
        assert run(store.find(rs.kid, "RS384")) is not None
        assert run(store.find(es.kid, "ES384")) is None
        assert len(server.asked) == 2
        # After its time is over a set counts no more, though nothing better can be had.
        now_s[0] = REFETCH_S + CACHE_S
        server.answer = (500, {}, b"")
        with pytest.raises(KeySetError, match="500"):
            run(store.find(rs.kid, "RS384"))
        with pytest.raises(KeySetError, match="a moment ago"):
            run(store.find(rs.kid, "RS384"))
        assert len(server.asked) == 3
        now_s[0] += RETRY_S
        server.answer = (200, {}, json.dumps({"keys": [rs.jwk]}).encode())
        assert run(store.find(rs.kid, "RS384")) is not None


def test_publishers_that_misbehave_are_refused(run, signers) -> None:
    es = signers["ES384"]
    good = json.dumps({"keys": [es.jwk]}).encode()
    with publishing(es.jwk) as other, publishing() as server:
        for answer in (
            (302, {"Location": other.url}, b""),
            (200, {}, b"<html>"),
            (200, {}, b"[" * 50_000),
            (200, {}, good + b" " * 70_000),
            (404, {}, good),
        ):
            server.answer = answer
            with pytest.raises(KeySetError):
                run(KeyStore(Issuer(iss=ISS, jku=server.url)).find(es.kid, "ES384"))
        assert other.asked == []
    with pytest.raises(KeySetError, match="ConnectError"):
        run(KeyStore(Issuer(iss=ISS, jku=server.url)).find(es.kid, "ES384"))


def test_a_publisher_that_hangs_costs_little_time(run, signers, monkeypatch) -> None:
    import socket
    import time

    monkeypatch.setattr("api.cds.keys.TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        jku = f"http://127.0.0.1:{silent.getsockname()[1]}/jwks.json"
        began_s = time.monotonic()
        with pytest.raises(KeySetError, match="Timeout"):
            run(KeyStore(Issuer(iss=ISS, jku=jku)).find("k", "ES384"))
        assert time.monotonic() - began_s < 2


@pytest.mark.parametrize(
    "text",
    [
        "", "issuer = 3", "[[issuer]]\n", '[[issuer]]\niss="a"', '[[other]]\niss="a"', "\x00",
        '[[issuer]]\niss="a"\njku="http://ehr.example.org/k"',
        '[[issuer]]\niss="a"\njku="https://u:p@ehr.example.org/k"',
        '[[issuer]]\niss="a"\njku="file:///etc/passwd"',
        '[[issuer]]\niss="a"\njku="https://e.org/k"\nfhir_server="ehr"',
        '[[issuer]]\niss="a"\njku="https://e.org/k"\nstart_cases="perhaps"',
        '[[issuer]]\niss="a"\njku="https://e.org/k"\nalgorithms=["none"]',
        '[[issuer]]\niss="a"\njku="https://e.org/k"\n[[issuer]]\niss="a"\njku="https://e.org/l"',
    ],
)  # fmt: skip
def test_trust_files_that_are_wrong_stop_the_start(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trust.toml"
    path.write_text(text)
    with pytest.raises(SettingsError):
        read_trust(path)


def test_the_desk_opens_for_nobody_by_accident(tmp_path: Path, signers) -> None:
    trust = write_trust(tmp_path, signers["ES384"], iss=ISS)

    def desk(**given: Any) -> None:
        open_desk(Settings(bundle=tmp_path, state=tmp_path, **given))

    desk(cds_trust=trust, public_url=PUBLIC)
    for wrong in (
        {"cds_trust": trust},
        {"cds_trust": trust, "public_url": PUBLIC, "cds_open": True},
        {"cds_open": True, "host": "0.0.0.0"},
        {"cds_open": True, "public_url": PUBLIC},
        {"cds_trust": tmp_path / "none.toml", "public_url": PUBLIC},
    ):
        with pytest.raises(SettingsError):
            desk(**wrong)
    (tmp_path / "issuer.jwks.json").write_text('{"keys": []}')
    with pytest.raises(SettingsError, match="JWK"):
        desk(cds_trust=trust, public_url=PUBLIC)


def test_over_http_a_token_opens_its_own_service_once(serve, tmp_path, signers) -> None:
    trust = write_trust(
        tmp_path, *signers.values(), iss=ISS, fhir_server="https://ehr.example.org/f"
    )
    es = signers["ES384"]
    path = HERE.removeprefix(PUBLIC)

    def fresh(audience: str = HERE) -> dict[str, str]:
        return {"Authorization": f"Bearer {es.token(claims(ISS, audience, datetime.now(UTC)))}"}

    with serve(cds_trust=trust, public_url=PUBLIC) as running, running.client(None) as client:
        body = hook("p", None, prefetch={"patient": None, "conditions": None, "observations": None})
        once = fresh()
        assert client.post(path, json=body, headers=once).json() == {"cards": []}
        again = client.post(path, json=body, headers=once)
        assert again.status_code == 401
        assert "used before" in again.json()["detail"]
        assert 'error="invalid_token"' in again.headers["WWW-Authenticate"]
        assert again.headers["Content-Type"] == "application/problem+json"
        for headers in ({}, {"Authorization": "Bearer"}, {"Authorization": "Basic eDp5"},
                        {"Authorization": "Bearer reviewer-key"}, fresh(PUBLIC)):  # fmt: skip
            answer = client.post(path, json=body, headers=headers)
            assert answer.status_code == 401, headers
            assert answer.json()["type"].endswith(":unauthorized")
        # A key of the API opens nothing here, and a token nothing there.
        assert client.get("/v1/cases", headers=fresh(PUBLIC + "/v1/cases")).status_code == 401
        elsewhere = hook("p", "https://other.example.org/f")
        assert client.post(path, json=elsewhere, headers=fresh()).status_code == 403
        both = [fresh(), fresh(HERE + "/feedback")]
        for headers in both:
            card = {"card": "0" * 8 + "-0000-0000-0000-" + "0" * 12, "outcome": "overridden",
                    "outcomeTimestamp": "2030-01-31T09:00:00Z"}  # fmt: skip
            for status in (404, 401):
                answer = client.post(path + "/feedback", json={"feedback": [card]}, headers=headers)
                assert answer.status_code == status
        assert client.post(path, json=body, headers=fresh(HERE + "/feedback")).status_code == 401


def test_keys_that_cannot_be_had_are_no_reason_to_let_anybody_in(serve, tmp_path, signers) -> None:
    es = signers["ES384"]
    with publishing(es.jwk) as server:
        jku = server.url
        trust = write_trust(tmp_path, iss=ISS, jku=jku)
        server.answer = (503, {}, b"")
        with serve(cds_trust=trust, public_url=PUBLIC) as running, running.client(None) as client:
            token = es.token(claims(ISS, HERE, datetime.now(UTC)), jku=jku)
            answer = client.post(
                HERE.removeprefix(PUBLIC), json=hook("p", None),
                headers={"Authorization": f"Bearer {token}"},
            )  # fmt: skip
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
            assert answer.json()["type"].endswith(":keys-unavailable")


def test_without_trust_nobody_is_let_in(serve) -> None:
    with serve() as running, running.client(None) as client:
        assert client.get("/cds-services").status_code == 200
        answer = client.post(HERE.removeprefix(PUBLIC), json=hook("p", None))
        assert answer.status_code == 401
        assert "trusts no CDS client" in answer.json()["detail"]
        assert isinstance(answer, httpx.Response)


def test_the_trust_file_of_the_readme_is_read(tmp_path: Path) -> None:
    readme = Path(__file__).resolve().parents[2] / "api" / "cds" / "README.md"
    block = readme.read_text().split("```toml\n")[1].split("```")[0]
    path = tmp_path / "trust.toml"
    path.write_text(block)
    (issuer,) = read_trust(path)
    assert issuer.start_cases
    assert issuer.system == "https://ehr.example.org/fhir"
