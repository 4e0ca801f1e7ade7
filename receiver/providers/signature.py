"""HMAC signatures of pushes. The providers hardly document theirs, so everything about one can be set."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

from receiver.errors import SettingsError
from receiver.providers import variables

if TYPE_CHECKING:
    from environs import Env

_ALGORITHMS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")
"""What an Infobip profile offers."""
_ENCODINGS = ("hex", "base64")
_SIGNED = ("body", "timestamp+body", "timestamp.body")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^`|~-]+")
"""RFC 9110 section 5.6.2 without the underscore, which servers drop."""
_FIRST_MILLISECONDS = 100_000_000_000
"""From here on a time is meant in milliseconds: as seconds it would be the year 5138."""
_URL_SAFE = str.maketrans("-_", "+/")


@dataclass(frozen=True)
class Scheme:
    """How a provider signs."""

    header: str = ""
    """Which holds the signature."""
    algorithm: str = "sha256"
    encoding: str = "hex"
    prefix: str = ""
    """Before the signature in its header, such as ``sha256=``."""
    signed: str = "body"
    """``body``, ``timestamp+body`` (one directly behind the other) or ``timestamp.body`` (a full stop between)."""
    timestamp: str = ""
    """The header that holds the time, in seconds or milliseconds since 1970."""
    tolerance: int = 300
    """Seconds that the time may be off, to either side; 0: any time will do."""


_PRESETS = {
    "exchange": Scheme(
        header="X-Ib-Exchange-Req-Signature", signed="timestamp+body", timestamp="X-Ib-Exchange-Req-Timestamp"
    ),
    "ib-hmac": Scheme(header="X-Ib-Hmac-Signature"),
    "hub": Scheme(header="X-Hub-Signature-256", prefix="sha256="),
    # The provider names headers and algorithm; what is signed and how it is written are assumed.
    "messaging-plus": Scheme(header="signature", signed="timestamp.body", timestamp="timestamp"),
}


@dataclass(frozen=True)
class Signature:
    """What pushes have to be signed with."""

    scheme: Scheme
    secrets: tuple[str, ...] = field(repr=False)

    def may_match(self, header: Callable[[str], str | None], now: float) -> bool:
        """What can be told without a body: whether there is a signature, and its time is near enough to ``now``."""
        return bool(header(self.scheme.header)) and self._is_recent(self._timestamp(header), now)

    def matches(self, header: Callable[[str], str | None], body: bytes, now: float) -> bool:
        """Whether the raw bytes are signed with one of the secrets, at a time near enough to ``now`` (seconds).

        ``header`` gives a header of the request. The work is the same for every failure.
        """
        scheme = self.scheme
        timestamp = self._timestamp(header)
        given = self._normal(header(scheme.header) or "")
        found = [hmac.compare_digest(given, self._expected(secret, timestamp, body)) for secret in self.secrets]
        return any(found) and self._is_recent(timestamp, now)

    def _timestamp(self, header: Callable[[str], str | None]) -> str:
        return (header(self.scheme.timestamp) or "") if self.scheme.timestamp else ""

    def _expected(self, secret: str, timestamp: str, body: bytes) -> bytes:
        scheme = self.scheme
        made = hmac.new(secret.encode(), digestmod=scheme.algorithm)
        if scheme.signed != "body":
            made.update(timestamp.encode("latin-1", "replace"))
            made.update(b"." if scheme.signed == "timestamp.body" else b"")
        made.update(body)
        text = made.hexdigest() if scheme.encoding == "hex" else base64.b64encode(made.digest()).decode()
        return self._normal(scheme.prefix + text)

    def _normal(self, text: str) -> bytes:
        """Hexadecimal digits in either case, base64 of either alphabet and with or without padding, are the same."""
        text = text.lower() if self.scheme.encoding == "hex" else text.translate(_URL_SAFE).rstrip("=")
        return text.encode("utf-8", "surrogatepass")

    def _is_recent(self, timestamp: str, now: float) -> bool:
        if not self.scheme.timestamp:
            return True
        if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 13):
            return False
        time = int(timestamp)
        seconds = time / 1000 if time >= _FIRST_MILLISECONDS else time
        return not self.scheme.tolerance or abs(now - seconds) <= self.scheme.tolerance


def from_env(env: Env, prefix: str) -> Signature | None:
    """Read ``<prefix>_SIGNATURE_SECRETS`` and ``_SIGNATURE_SCHEME``: both or none. Raises ``SettingsError``."""
    secrets_name, scheme_name = f"{prefix}_SIGNATURE_SECRETS", f"{prefix}_SIGNATURE_SCHEME"
    secrets, words = variables.secrets(env, secrets_name), variables.text(env, scheme_name).split()
    if secrets and not words:
        raise SettingsError(f"{scheme_name}: missing, as {secrets_name} is set")
    if words and not secrets:
        raise SettingsError(f"{secrets_name}: missing, as {scheme_name} is set")
    return Signature(_scheme(scheme_name, words), secrets) if secrets else None


def _scheme(name: str, words: list[str]) -> Scheme:
    """Read ``hub``, ``exchange tolerance=600`` or ``header=X-Signature algorithm=sha1 …``."""
    scheme = Scheme()
    if "=" not in words[0]:
        if words[0] not in _PRESETS:
            raise SettingsError(f"{name}: unknown preset; known are {', '.join(_PRESETS)}")
        scheme = _PRESETS[words.pop(0)]
    given: dict[str, str | int] = {}
    for word in words:
        option, equals, value = word.partition("=")
        if not equals or option not in (one.name for one in fields(Scheme)) or option in given:
            raise SettingsError(f"{name}: must be a preset and option=value, each option once, with blanks between")
        given[option] = value
    if "tolerance" in given:
        given["tolerance"] = _seconds(name, str(given["tolerance"]))
    scheme = replace(scheme, **given)  # type: ignore[arg-type]
    _check(name, scheme)
    return scheme


def _seconds(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 9):
        raise SettingsError(f"{name}: tolerance must be a whole number of seconds")
    return int(value)


def _check(name: str, scheme: Scheme) -> None:
    for option, known in (("algorithm", _ALGORITHMS), ("encoding", _ENCODINGS), ("signed", _SIGNED)):
        if getattr(scheme, option) not in known:
            raise SettingsError(f"{name}: {option} must be one of {', '.join(known)}")
    for option in ("header", "timestamp"):
        if not _HEADER.fullmatch(getattr(scheme, option) or ("-" if option == "timestamp" else "")):
            raise SettingsError(f"{name}: {option} must be the name of a header")
    if ("timestamp" in scheme.signed) != bool(scheme.timestamp):
        # A time that is not signed can be changed by whoever replays the push.
        raise SettingsError(f"{name}: timestamp must be given exactly where it is signed")
