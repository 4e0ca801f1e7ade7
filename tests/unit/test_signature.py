"""HMAC signatures: what is signed, how it is written, and what makes a setting wrong."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable
from typing import Any

import pytest
from environs import Env

from receiver.errors import SettingsError
from receiver.providers import signature
from receiver.providers.signature import Signature

SECRETS = ("signing-secret-one", "signing-secret-two")
BODY = b'{"results": []}\r\n\xff\x00'
NOW = 1_760_000_000.0


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Signature]:
    """Reads a scheme as the service does."""

    def read(scheme: str, secrets: str = ",".join(SECRETS)) -> Signature:
        monkeypatch.setenv("X_SIGNATURE_SECRETS", secrets)
        monkeypatch.setenv("X_SIGNATURE_SCHEME", scheme)
        found = signature.from_env(Env(), "X")
        assert found
        return found

    return read


def digest(signed: bytes, secret: str = SECRETS[0], algorithm: str = "sha256") -> bytes:
    return hmac.new(secret.encode(), signed, algorithm).digest()


def matches(made: Signature, body: bytes = BODY, now: float = NOW, **headers: Any) -> bool:
    named = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    return made.matches(lambda name: named.get(name.lower()), body, now)


def test_a_digest_that_others_have_made(make: Callable[..., Signature]) -> None:
    """``printf hello | openssl dgst -sha256 -hmac key-of-16-letters``"""
    made = make("header=X-Sig", "key-of-16-letters")
    assert matches(made, b"hello", X_Sig="ef1278cfa0480930dc53016b2b997987a1e546b6060663309fd3b480dd84df91")


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha224", "sha256", "sha384", "sha512"])
@pytest.mark.parametrize("encoding", ["hex", "base64"])
@pytest.mark.parametrize("secret", SECRETS)
def test_every_algorithm_encoding_and_secret(
    make: Callable[..., Signature], algorithm: str, encoding: str, secret: str
) -> None:
    made = make(f"header=X-Sig algorithm={algorithm} encoding={encoding} prefix={algorithm}=")
    right = digest(BODY, secret, algorithm)
    written = right.hex() if encoding == "hex" else base64.b64encode(right).decode()
    assert matches(made, X_Sig=f"{algorithm}={written}")
    for wrong in (
        written,
        f"{algorithm}={written[:-4]}",
        f"{algorithm}={written}0",
        algorithm + "=",
        "",
        "é",
        "\udc80",
    ):
        assert not matches(made, X_Sig=wrong)
    assert not matches(made, BODY + b" ", X_Sig=f"{algorithm}={written}")
    assert not matches(made)


def test_spellings_of_the_same_digest(make: Callable[..., Signature]) -> None:
    made = digest(BODY)
    assert matches(make("header=X-Sig"), X_Sig=made.hex().upper())
    in_base64 = make("header=X-Sig encoding=base64")
    assert matches(in_base64, X_Sig=base64.urlsafe_b64encode(made).decode().rstrip("="))


@pytest.mark.parametrize(("signed", "between"), [("timestamp+body", b""), ("timestamp.body", b".")])
def test_a_signed_time_makes_a_replay_expire(make: Callable[..., Signature], signed: str, between: bytes) -> None:
    made = make(f"header=X-Sig signed={signed} timestamp=X-Time tolerance=60")
    for time in (str(int(NOW)), f"{NOW * 1000:.0f}"):
        good: dict[str, Any] = {"X_Sig": digest(time.encode() + between + BODY).hex(), "X_Time": time}
        assert matches(made, **good)
        assert matches(made, now=NOW + 60, **good)
        assert matches(made, now=NOW - 60, **good)
        assert not matches(made, now=NOW + 61, **good)
        assert not matches(made, now=NOW - 61, **good)
        assert not matches(made, **{**good, "X_Time": str(int(NOW) + 1)})
        assert not matches(made, X_Sig=good["X_Sig"])
    for odd in ("", "-1", "1e9", "²", "9" * 400, "2025-10-09"):
        signature_of_it = digest(odd.encode("latin-1", "replace") + between + BODY).hex()
        assert not matches(made, X_Sig=signature_of_it, X_Time=odd)


def test_without_tolerance_any_time_will_do(make: Callable[..., Signature]) -> None:
    made = make("header=X-Sig signed=timestamp.body timestamp=X-Time tolerance=0")
    assert matches(made, X_Sig=digest(b"1." + BODY).hex(), X_Time="1")


@pytest.mark.parametrize(
    ("preset", "headers"),
    [
        ("hub", {"X_Hub_Signature_256": "sha256=" + digest(BODY).hex()}),
        ("ib-hmac", {"X_Ib_Hmac_Signature": digest(BODY).hex()}),
        (
            "exchange",
            {
                "X_Ib_Exchange_Req_Signature": digest(b"1760000000" + BODY).hex(),
                "X_Ib_Exchange_Req_Timestamp": "1760000000",
            },
        ),
        ("messaging-plus", {"signature": digest(b"1760000000." + BODY).hex(), "timestamp": "1760000000"}),
        ("messaging-plus signed=timestamp+body encoding=base64", {
            "signature": base64.b64encode(digest(b"1760000000" + BODY)).decode(), "timestamp": "1760000000"
        }),
    ],
)  # fmt: skip
def test_presets_and_what_differs_from_them(
    make: Callable[..., Signature], preset: str, headers: dict[str, Any]
) -> None:
    assert matches(make(preset), **headers)


@pytest.mark.parametrize(
    "scheme",
    [
        "planted",
        "hub planted",
        "hub planted=1",
        "hub prefix=a prefix=b",
        "hub hub",
        "algorithm=sha256",
        "header=",
        "header=X_Sig",
        "header=Plänted",
        "hub algorithm=planted",
        "hub algorithm=sha3_256",
        "hub encoding=planted",
        "hub signed=planted",
        "hub timestamp=X-Time",
        "hub signed=timestamp.body",
        "exchange timestamp=",
        "exchange tolerance=planted",
        "exchange tolerance=-1",
        "exchange tolerance=²",
    ],
)
def test_a_wrong_scheme_is_refused_without_repeating_it(make: Callable[..., Signature], scheme: str) -> None:
    with pytest.raises(SettingsError, match=r"^X_SIGNATURE_SCHEME: [^\n]+$") as refusal:
        make(scheme)
    assert "plant" not in str(refusal.value).lower()


def test_secrets_and_scheme_need_each_other_and_length(make: Callable[..., Signature]) -> None:
    with pytest.raises(SettingsError, match=r"^X_SIGNATURE_SCHEME: missing"):
        make("")
    with pytest.raises(SettingsError, match=r"^X_SIGNATURE_SECRETS: missing"):
        make("hub", "")
    with pytest.raises(SettingsError, match=r"^X_SIGNATURE_SECRETS: every secret must have at least 16"):
        make("hub", "only-15-letters")
    assert "signing" not in repr(make("hub"))
