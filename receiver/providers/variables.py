"""Reading a provider's variables. Errors name the variable and never print a value."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from receiver.errors import SettingsError

if TYPE_CHECKING:
    from environs import Env


def text(env: Env, name: str, default: str = "") -> str:
    """Give a variable without surrounding blanks; a blank one counts as unset."""
    return (env.str(name, default="") or "").strip() or default


def words(env: Env, name: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Give a comma-separated list without blanks and repetitions; a blank one counts as unset."""
    found = dict.fromkeys(word.strip() for word in text(env, name).split(","))
    return tuple(word for word in found if word) or default


SECRET_LENGTH = 16
"""Characters of a secret that callers must know, at least: 16 random letters and digits are 95 bits, which cannot be
guessed over a network; what is shorter tends to be a word."""


def secrets(env: Env, name: str) -> tuple[str, ...]:
    """Give a list of secrets that callers must know; raises ``SettingsError`` where one could be guessed."""
    found = words(env, name)
    if any(len(secret) < SECRET_LENGTH for secret in found):
        raise SettingsError(f"{name}: every secret must have at least {SECRET_LENGTH} characters, or it can be guessed")
    return found


def credential(env: Env, name: str) -> str:
    """Give a secret that is sent in a header or a query; other characters would fail, with the value in the error."""
    value = text(env, name)
    if not (value.isascii() and (value.isprintable() or not value)):
        raise SettingsError(f"{name}: only printable ASCII characters are possible")
    return value


def base_url(env: Env, name: str, default: str = "") -> str:
    """Give an http(s) address without a trailing slash, empty where unset."""
    value = text(env, name, default)
    if not value:
        return ""
    try:
        parts = urlsplit(value)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number, a bracket too many
        is_good = False
    if not is_good or "@" in parts.netloc or parts.query or parts.fragment or not value.isprintable() or " " in value:
        raise SettingsError(f"{name}: must be an http or https address with a host, without user, query and fragment")
    return value.rstrip("/")
