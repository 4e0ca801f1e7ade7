"""What never reaches a log: secrets, addresses with credentials, full phone numbers."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from receiver import logs

SECRETS = ("planted-secret", "planted-secret-longer", "planted p@ss", "plantéd")


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """Leaves the logging of the other tests as it was."""
    root = logging.getLogger()
    handlers, level, configuration = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**configuration)
    logs._redactor.secrets = ()


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What was logged so far."""
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("to 41793026731", "to ***731"),
        ("to +41793026731.", "to ***731."),
        ("41793026731: refused", "***731: refused"),
        ("to=41793026731,", "to=***731,"),
        ("destination:41793026731", "destination:***731"),
        ('{"to":"41793026731"}', '{"to":"***731"}'),
        ("(infobip, m-1, 41793026731)", "(infobip, m-1, ***731)"),
        ("/messages/infobip/41793026731", "/messages/infobip/***731"),
        ("/messages/infobip/+41793026731?x", "/messages/infobip/***731?x"),
        ("41793026731 and 41793026732", "***731 and ***732"),
        ("1234567", "***567"),
        ("x41793026731", "x***731"),
        ("41793026731abc", "***731abc"),
        ("msisdn_41793026731_", "msisdn_***731_"),
        ("+41 79 302 67 31", "***731"),
        ("to +41 (79) 302-67-31, or +4179/3026732.", "to ***731, or ***732."),
        ("GET /batch/x?key=planted&details=true", "GET /batch/x?key=[secret]&details=true"),
        ("https://host/path?a=b&KEY=planted", "https://host/path?a=b&KEY=[secret]"),
        ("postgres://user:planted@host/name", "postgres://user:[secret]@host/name"),
        ("https://:planted@host", "https://:[secret]@host"),
        ("POST /webhooks/infobip/planted HTTP/1.1", "POST /webhooks/infobip/[secret] HTTP/1.1"),
        ("/webhooks/messaging-plus/planted/more?x", "/webhooks/messaging-plus/[secret]?x"),
    ],
)
def test_what_looks_like_a_secret_or_a_phone_number_is_taken_out(text: str, clean: str) -> None:
    assert logs.redact(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        "7d76bd34-c8c9-4e4f-b831-123456789012",
        "12345678-c8c9-4e4f-b831-d6316ffaf609",
        "2026-11-23T15:21:37.286842Z",
        "in 0.1234567 seconds",
        "+41 of 79",
        "2026-11-23T15:21:37.286842+0000",
        "127.0.0.1:54321",
        "status 503",
        "migration 0001_tables",
        "/webhooks/infobip",
    ],
)
def test_ids_times_and_figures_stay(text: str) -> None:
    assert logs.redact(text) == text


@pytest.mark.parametrize("spelled", ["planted%20p%40ss", "planted+p%40ss", "plant%C3%A9d", "plant%c3%a9d"])
def test_a_secret_is_known_as_a_url_spells_it(spelled: str) -> None:
    logs.configure(SECRETS)
    assert logs.redact(f"/batch/x?y={spelled}&z") == "/batch/x?y=[secret]&z"


@pytest.mark.parametrize("short", ["a", "ab", "abc"])
def test_a_short_password_leaves_words_alone_and_is_found_by_its_place(short: str) -> None:
    logs.configure([short])
    said = f"cannot abandon the abc of postgres://user:{short}@host/name"
    assert logs.redact(said) == "cannot abandon the abc of postgres://user:[secret]@host/name"


@pytest.mark.parametrize("secret", SECRETS)
def test_a_known_secret_is_taken_out_wherever_it_stands(capsys: pytest.CaptureFixture[str], secret: str) -> None:
    logs.configure(SECRETS)
    structlog.get_logger("a").info("event", field=f"x{secret}y", nested={"deep": [secret]}, error=ValueError(secret))
    logging.getLogger("b").warning("library says %s", secret)
    [first_line, second_line] = lines(capsys)
    assert "plant" not in first_line + second_line
    first = json.loads(first_line)
    assert first["field"] == "x[secret]y"
    assert first.keys() == {"field", "nested", "error", "event", "level", "time"}
    assert json.loads(second_line)["event"] == "library says [secret]"


def test_a_traceback_is_one_line_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(SECRETS)
    try:
        raise ValueError("planted-secret of 41793026731")
    except ValueError:
        structlog.get_logger("a").exception("failed")
        logging.getLogger("b").exception("failed")
    logged = [json.loads(line) for line in lines(capsys)]
    assert [line["level"] for line in logged] == ["error", "error"]
    for line in logged:
        assert "Traceback" in line["exception"]
        assert line["exception"].endswith("ValueError: [secret] of ***731")
        assert "planted-secret" not in line["exception"]


def test_line_ends_do_not_make_new_lines(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(SECRETS)
    structlog.get_logger("a").info("event", path='/x\n{"event":"forged"}\x1b[31m')
    [line] = lines(capsys)
    assert json.loads(line)["path"].startswith("/x\n")
