"""The whole service runs, is attacked and breaks; then all that it printed, answered and stored is searched."""

from __future__ import annotations

import base64
import gzip
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus

import psycopg
import pytest
import structlog
from environs import Env
from gunicorn.config import Config
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from receiver import logs
from receiver.packing import opened
from receiver.providers import PROVIDERS
from receiver.providers.infobip import Infobip
from receiver.sandbox import Sandbox, SandboxConfig
from receiver.web import access_log
from tests.integration.server import ROOT, Web, execute, finished, locked, running, serving, wait_for

SECRETS = {
    "INFOBIP_WEBHOOK_SECRETS": "hook/of infobip+ä 1,hook-of-infobip-no-2",
    "MESSAGING_PLUS_WEBHOOK_SECRETS": "hook-of-messaging-plus",
    "INFOBIP_API_KEY": "key+of/infobip=1",
    "MESSAGING_PLUS_API_KEY": "key&of+messaging plus",
    "API_TOKENS": "token-of-application-1,token-of-application-2",
}
DATABASE_PASSWORD = "p@ss/of:the database"
WRONG = "almost-a-secret-of-ours"
FORGOTTEN = "447700900123"
NUMBERS = ("41793026731", "41793026732", FORGOTTEN)
MEANT_FOR_NUMBERS = {"message_status", "delivery_report", "payload", "quarantine", "sent_batch"}


class Finding(NamedTuple):
    """Where something was found that must not be there; never what."""

    place: str
    what: str


def spellings(secret: str) -> set[str]:
    """A secret as paths, headers, JSON and quotes show it."""
    forms = {
        secret,
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        repr(secret)[1:-1],
    }
    forms |= {secret.encode().decode("latin-1"), repr(secret.encode())[2:-1]}
    forms |= {base64.b64encode(f"{user}:{secret}".encode()).decode() for user in ("", "any", "planted")}
    return forms | {re.sub("%..", lambda found: found[0].lower(), form) for form in forms}


ALL_SECRETS = {
    f"{name} {n}": spellings(secret)
    for name, secrets in {**SECRETS, "DATABASE_URL": DATABASE_PASSWORD, "a wrong one": WRONG}.items()
    for n, secret in enumerate(secrets.split(","))
}


def scan(places: dict[str, str], meant_for_numbers: Sequence[str] = ()) -> list[Finding]:
    """Search texts by the names of their places."""
    found = [
        Finding(place, name)
        for place, text in places.items()
        for name, forms in ALL_SECRETS.items()
        if any(form in text for form in forms)
    ]
    found += [
        Finding(place, "a phone number")
        for place, text in places.items()
        if place not in meant_for_numbers and any(number in text for number in NUMBERS)
    ]
    return found


_HEX = re.compile(r"x((?:[0-9a-f]{2})+)")
"""Bytes as Postgres writes them."""


def _as_text(found: re.Match[str]) -> str:
    return bytes.fromhex(found[1]).decode("latin-1")


def tables(url: str) -> dict[str, str]:
    """All rows of all tables and views of both schemas as text, raw bodies as the text that they are or hold."""
    relations = """
      select nspname, relname from pg_class c join pg_namespace n on n.oid = relnamespace
      where nspname in ('public', 'analyst') and relkind in ('r', 'p', 'v', 'm') and not relispartition"""
    places = {}
    with psycopg.connect(url, autocommit=True) as connection:
        for schema, name in connection.execute(relations).fetchall():
            rows = connection.execute(f'select to_jsonb(t) from {schema}."{name}" t').fetchall()  # noqa: S608
            places[name if schema == "public" else f"{schema}.{name}"] = "\n".join(
                f"{row} {json.dumps(row)}" for (row,) in rows
            )
        bodies = connection.execute("select body, content_type from payload").fetchall()
        places["payload"] += "\n".join(f"{opened(body).decode('latin-1')} {kind}" for body, kind in bodies)
        samples = connection.execute("select to_jsonb(s)::text from pg_stats s where schemaname = 'public'").fetchall()
        places["pg_stats"] = "\n".join(_HEX.sub(_as_text, row) for (row,) in samples)
        activity = connection.execute("select application_name, query from pg_stat_activity").fetchall()
        places["pg_stat_activity"] = str(activity)
    return places


def processes(pid: int) -> str:
    """Command lines and titles of a process and of all that it has started."""
    listed = subprocess.run(
        ["ps", "-e", "-ww", "-o", "sid=,comm=,args="], capture_output=True, text=True, check=True
    ).stdout
    return "\n".join(line for line in listed.splitlines() if line.split()[0] == str(pid))


def watched(*arguments: str, stdin: str = "", **variables: str) -> tuple[int, str, str]:
    """Exit status and output of ``python -m receiver VERB …``, and its process titles for as long as it ran."""
    titles = set()
    with running(*arguments, stdin=stdin, **variables) as process:
        while process.is_alive():
            titles |= set(processes(process.pid).splitlines())
        return process.wait(), process.output, "\n".join(titles)


def provoke(web: Web, url: str) -> dict[str, str]:
    """Everything that goes wrong, and some that goes well; gives the answers."""
    answers: dict[str, str] = {}

    def call(method: str, path: str, body: Any = b"", **options: Any) -> None:
        answer = web.post(path, body, **options) if method == "POST" else web.get(path, **options)
        answers[f"answer {len(answers)} {answer.status_code}"] = f"{answer.headers} {answer.text}"

    first, second = (
        f"/webhooks/infobip/{quote(secret, safe='')}" for secret in SECRETS["INFOBIP_WEBHOOK_SECRETS"].split(",")
    )
    plus = f"/webhooks/messaging-plus/{SECRETS['MESSAGING_PLUS_WEBHOOK_SECRETS']}"
    bearer = {"Authorization": f"Bearer {SECRETS['API_TOKENS'].split(',')[0]}"}
    report = {"messageId": "m-1", "to": NUMBERS[0], "status": {"groupId": 3}}
    for path in (first, second):
        call("POST", path, {"results": [report, {"to": NUMBERS[0]}, {"to": int(NUMBERS[1]), "messageId": "x" * 3000}]})
    call("POST", plus, {"messageuuid": "u", "batchuuid": "b", "destination": f"+{NUMBERS[1]}", "delivered": True})
    call(
        "POST",
        "/webhooks/infobip",
        {"results": [report]},
        auth=("any", SECRETS["INFOBIP_WEBHOOK_SECRETS"].split(",")[1]),
    )
    packed = gzip.compress(json.dumps({"results": [report | {"to": FORGOTTEN}]}).encode())
    call("POST", first, packed, headers={"Content-Encoding": "gzip"})
    call("POST", first, f'{{"results": [{{"to": "{NUMBERS[0]}'.encode())
    call("POST", first, b"<a><b>" + NUMBERS[0].encode(), headers={"Content-Type": "application/xml"})
    call("POST", first, {"results": [{**report, "messageId": "y" * 9000, "price": {"pricePerMessage": "1e99999"}}]})
    call("POST", "/sent/messaging-plus", {"identifier": "b2", "destinations": list(NUMBERS)}, headers=bearer)
    call("GET", "/messages/infobip/m-nobody", headers=bearer)
    call("GET", f"/messages/infobip/{NUMBERS[0]}?key={WRONG}", headers=bearer)
    for path in (
        f"/webhooks/infobip/{WRONG}",
        f"/webhooks/{WRONG}",
        f"/webhook/infobip/{SECRETS['INFOBIP_WEBHOOK_SECRETS'].split(',')[1]}",
        f"/{WRONG}/{NUMBERS[0]}",
        f"//webhooks//infobip//{WRONG}",
        f"/webhooks%2Finfobip%2F{WRONG}?token={WRONG}",
        f"{first}/more",
        f"/messages/infobip/m-1?token={WRONG}",
    ):
        call("POST", path, {"results": [report]}, headers={"Authorization": f"Bearer {WRONG}"})
        call("GET", path, auth=("any", WRONG))
    call("GET", first)
    for raw in (
        f"POST {first} {NUMBERS[0]} HTTP/1.1\r\n\r\n",
        f"GET /{WRONG} HTTP/9.9\r\n\r\n",
        f"{WRONG} / HTTP/1.1\r\n\r\n",
        f"GET / HTTP/1.1\r\nAuthorization : Bearer {WRONG}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: x\r\n {WRONG} {NUMBERS[0]}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {WRONG}\r\n\r\n",
        f"POST {first} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{WRONG}\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", web.port), timeout=10) as client:
            client.sendall(raw.encode("latin-1"))
            client.shutdown(socket.SHUT_WR)
            answers[f"answer {len(answers)}"] = b"".join(iter(lambda: client.recv(65_536), b"")).decode("latin-1")
    with locked(url, "message_status"):
        call("POST", second, {"results": [report]})
    execute(url, "alter table delivery_report rename to hidden")
    call("GET", "/messages/infobip/m-1", headers=bearer)
    call("POST", first, {"results": [report]})
    execute(url, "alter table hidden rename to delivery_report")
    return answers


QUIET = {"log_statement": "all", "log_parameter_max_length": "0", "log_error_verbosity": "terse"}
"""Postgres logs every statement, and neither parameters nor the rows that it refuses: what docs/privacy.md asks for."""


@pytest.fixture(scope="module")
def server_log(request: pytest.FixtureRequest, module_database_url: str) -> Callable[[], str]:
    """Gives what our own Postgres has logged since; of another server nobody here sees the log."""
    if "DATABASE_URL" in os.environ:
        return lambda: ""
    log: Path = request.getfixturevalue("postgres_server").log
    start = log.stat().st_size
    return lambda: log.read_bytes()[start:].decode(errors="replace")


@pytest.fixture(scope="module")
def places(module_database_url: str, server_log: Callable[[], str]) -> Iterator[dict[str, str]]:
    """All that a full run has printed, answered and stored."""
    url = module_database_url
    database = sql.Identifier(str(conninfo_to_dict(url)["dbname"]))
    with psycopg.connect(url, autocommit=True) as connection:
        for name, value in QUIET.items():
            connection.execute(sql.SQL("alter database {} set {} = {}").format(database, sql.Identifier(name), value))
    try:
        yield full_run(url) | {"log of Postgres": server_log()}
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL("alter database {} reset all").format(database))


def full_run(url: str) -> dict[str, str]:
    """Run everything, and let it fail."""
    key, other_key = SECRETS["INFOBIP_API_KEY"], SECRETS["MESSAGING_PLUS_API_KEY"]
    with Sandbox(SandboxConfig(infobip_api_key=key, messaging_plus_api_key=other_key, time_scale=0.00001)) as sandbox:
        variables = {
            **SECRETS,
            "DATABASE_URL": make_conninfo(url, password=DATABASE_PASSWORD),
            "INFOBIP_BASE_URL": sandbox.url,
            "MESSAGING_PLUS_BASE_URL": sandbox.url,
            "RECONCILE_INTERVAL_SECONDS": "0.2",
            "OVERDUE_AFTER_SECONDS": "0.001",
            "WEBHOOK_DEADLINE_SECONDS": "0.5",
        }
        batch = sandbox.send_messaging_plus([f"+{FORGOTTEN}"], ["pending"])["identifier"]
        sandbox.send_infobip(3, "pending", destination=FORGOTTEN)
        sandbox.inject({"to": FORGOTTEN})
        sandbox.drain()
        execute(url, "insert into sent_batch (batch_id) values (%s)", batch)
        found: dict[str, str] = {}
        with serving("--access-logfile", "-", **variables) as web, running("reconcile", **variables) as reconciler:
            wait_for(lambda: "pulled" in reconciler.output)
            for kind, options in (
                ("error", {"status": 401}),
                ("html", {"status": 200}),
                ("reset", {}),
                ("error", {"status": 500}),
            ):
                sandbox.fault("/", kind, times=4, **options)  # type: ignore[arg-type]
            found |= provoke(web, url)
            wait_for(lambda: "pull_failed" in reconciler.output)
            found["process titles"] = processes(web.pid) + processes(reconciler.pid)
            assert "gunicorn" in found["process titles"]
            assert "reconcile" in found["process titles"]
            web.terminate()
            reconciler.terminate()
            assert (web.wait(), reconciler.is_alive() and reconciler.wait()) is not None
            found["log of web"], found["log of reconciler"] = web.output, reconciler.output
    execute(url, "analyze")
    before = tables(url)
    assert [place for place in (*MEANT_FOR_NUMBERS, "pg_stats") if FORGOTTEN not in before[place]] == []
    for command in (
        "receiver migrate",
        "receiver status",
        "receiver replay",
        "receiver rebuild --from-payload",
        "receiver prune",
        "receiver export --from 2020-01-01 --to 2020-01-02",
        "receiver forget -",
    ):
        status, found[command], titles = watched(*command.split()[1:], stdin=f"+{FORGOTTEN}\n", **variables)
        assert status == 0, command
        assert command in titles
        found["process titles"] += titles
    nowhere = f"postgres://planted:{quote(DATABASE_PASSWORD, safe='')}@127.0.0.1:1/planted"
    for words in (("migrate",), ("reconcile", "--once")):
        status, found[f"{words[0]} without a database"] = finished(*words, **{**variables, "DATABASE_URL": nowhere})
        assert status == 1
    _, found["a wrong setting"] = finished("status", **{**variables, "RAW_RETENTION_DAYS": WRONG})
    _, found["a wrong URL"] = finished(
        "status", **{**variables, "DATABASE_URL": nowhere.replace("postgres:", f"{WRONG}:")}
    )
    return found | tables(url)


ALLOWED = [*MEANT_FOR_NUMBERS, "open_gaps", "status_conflicts", "message_history", "pg_stats"]


def test_nothing_that_a_full_run_printed_or_stored_holds_a_secret_or_a_number(places: dict[str, str]) -> None:
    assert scan(places, ALLOWED) == []


def test_a_forgotten_number_is_nowhere(places: dict[str, str]) -> None:
    assert [place for place, text in places.items() if FORGOTTEN in text] == []


def test_the_run_was_a_full_one(places: dict[str, str]) -> None:
    """What the scan has seen: every kind of answer, every kind of trouble, and rows in every table with numbers."""
    statuses = {name.split()[-1] for name in places if name.startswith("answer") and len(name.split()) == 3}
    assert statuses >= {"200", "400", "401", "404", "405", "500", "503"}
    for event in ("unexpected", "not_committed", "quarantined", "unreadable", "request"):
        assert f'"{event}"' in places["log of web"], event
    assert "[unknown]" in places["log of web"]
    assert '"pull_failed"' in places["log of reconciler"]
    if places["log of Postgres"]:
        assert "from record($1" in places["log of Postgres"]
        assert "ERROR:" in places["log of Postgres"]
    for table in MEANT_FOR_NUMBERS:
        assert any(number in places[table] for number in NUMBERS), table


@pytest.mark.parametrize("name", sorted(ALL_SECRETS))
def test_a_planted_secret_is_found_in_every_spelling(places: dict[str, str], name: str) -> None:
    for form in ALL_SECRETS[name]:
        for place in ("log of web", "payload", "process titles", "pull"):
            planted = {place: f"{places[place]} x{form}y"}
            assert Finding(place, name) in scan(planted, ALLOWED)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_planted_number_is_found_where_it_is_not_meant_to_be(places: dict[str, str], number: str) -> None:
    for place, text in places.items():
        findings = scan({place: f"{text} +{number}"}, ALLOWED)
        assert findings == ([] if place in ALLOWED else [Finding(place, "a phone number")])


@pytest.mark.usefixtures("places")
def test_what_is_planted_in_a_packed_body_or_in_statistics_is_found(module_database_url: str) -> None:
    url = module_database_url
    packed = gzip.compress(f'{{"planted": "{WRONG} of {FORGOTTEN}"}}'.encode())
    planted = "insert into payload (received_at, provider, source, body) values (now(), 'infobip', 'push', %s)"
    execute(url, planted, packed)
    execute(url, "create table planted as select %s::text as text, %s::bytea as body from generate_series(1, 9)",
            f"{WRONG} of {FORGOTTEN}", FORGOTTEN.encode())  # fmt: skip
    execute(url, "analyze planted")
    try:
        found = tables(url)
    finally:
        execute(url, "drop table planted")
        execute(url, "delete from payload where body = %s", packed)
    assert FORGOTTEN in found["payload"]
    assert {Finding("payload", "a wrong one 0"), Finding("pg_stats", "a wrong one 0")} <= set(scan(found, ALLOWED))
    assert Finding("pg_stats", "a phone number") in scan(found)
    assert found["pg_stats"].count(FORGOTTEN) >= 2


def test_a_number_on_a_command_line_is_found(module_database_url: str) -> None:
    status, _, titles = watched("forget", FORGOTTEN, DATABASE_URL=module_database_url)
    assert status == 0
    assert scan({"process titles": titles}) == [Finding("process titles", "a phone number")]


# --- what nobody logs on purpose


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """Leaves the logging of the other tests as it was."""
    root = logging.getLogger()
    handlers, level, configuration = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**configuration)
    logging.captureWarnings(False)
    sys.excepthook = sys.__excepthook__


UNCAUGHT = f"""
import sys, threading, warnings
from receiver import logs
logs.configure(["{WRONG}"])
def fail(): raise ValueError("{WRONG} of {NUMBERS[0]}")
class Late:
    def __del__(self): fail()
warnings.warn("{WRONG} of {NUMBERS[0]}")
thread = threading.Thread(target=fail); thread.start(); thread.join()
late = Late(); del late
fail()
"""


def test_what_nobody_catches_is_logged_without_secrets() -> None:
    """In a thread, in a finalizer, as a warning, and what ends the process."""
    done = subprocess.run([sys.executable, "-c", UNCAUGHT], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr == ""
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events if event["event"] == "uncaught"] == ["uncaught"] * 3
    assert len(events) == 4
    assert scan({"printed": done.stdout}) == []
    assert done.stdout.count("***731") == 4


def test_what_nobody_catches_in_a_greenlet_is_logged_without_secrets() -> None:
    variables = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing", "API_TOKENS": f"{WRONG} of {NUMBERS[0]}"}
    with serving("--config", "tests/security/failing.py", **variables) as web:
        wait_for(lambda: '"uncaught"' in web.output)
        printed = web.output
    assert [json.loads(line)["event"] for line in printed.splitlines()].count("uncaught") == 1
    assert "in fail" in printed
    assert scan({"printed": printed}) == []


def test_hooks_of_others_stay() -> None:
    hook = threading.excepthook
    assert hook is not threading.__excepthook__  # pytest's own
    with warnings.catch_warnings():
        logs.configure()
    assert threading.excepthook is hook


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (
            "Invalid request from ip=10.0.0.1: Invalid HTTP Header: 'X planted'",
            "Invalid request from ip=10.0.0.1: Invalid HTTP Header: [what was sent]",
        ),
        ("{'Authorization': 'Bearer planted'}", "{'Authorization': 'Bearer [secret]'}"),
        ("Authorization: App planted", "Authorization: App [secret]"),
        ("sent Basic cGxhbnRlZDpwbGFudGVk", "sent Basic [secret]"),
        ("host=x password=planted dbname=y", "host=x password=[secret] dbname=y"),
        ("postgres://u:pl@nt/ed@host/db", "postgres://u:[secret]@host/db"),
        ("error\nDETAIL:  Key (a)=(planted) exists.", "error\nDETAIL: [values]"),
        ('CONTEXT:  JSON data, line 1: {"planted"', "CONTEXT:  JSON data, line 1: [values]"),
        ('invalid input syntax for type json: "planted"', "invalid input syntax for type json: [value]"),
        ("Authorization is required", "Authorization is required"),
        ("an app configuration", "an app configuration"),
    ],
)
def test_secrets_that_nobody_told_us_are_known_by_their_place(text: str, clean: str) -> None:
    assert logs.redact(text) == clean


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/webhooks/infobip/planted", "/webhooks/infobip/[secret]"),
        ("/webhooks/infobip/planted/more?key=planted", "/webhooks/infobip/[secret]"),
        ("//webhooks//infobip//planted", "/[unknown]"),
        ("/webhooks/PLANTED-1", "/[unknown]"),
        ("/webhooks/a-planted-secret", "/[unknown]"),
        ("/sent/infobip/planted", "/[unknown]"),
        ("/healthz/planted", "/[unknown]"),
        ("/webhook/infobip/planted", "/[unknown]"),
        ("/webhooks%2Finfobip%2Fplanted", "/[unknown]"),
        ("/planted", "/[unknown]"),
        ("/", "/[unknown]"),
        ("/readyz?planted", "/readyz"),
        ("/messages/infobip/m-1", "/messages/infobip/m-1"),
        ("/messages/infobip/m-41793026731-1", "/messages/infobip/m-***731-1"),
        ("/messages/infobip/x%3Bkey%3Dplanted", "/messages/infobip/[id]"),
        ("/messages/infobip/%E2%80%8B41793026731", "/messages/infobip/[id]"),
        ("/messages/planted", "/[unknown]"),
    ],
)
def test_a_path_shows_routes_only(path: str, shown: str) -> None:
    assert access_log.shown_path(path) == shown


def test_gunicorn_does_not_say_the_address_of_what_it_could_not_handle(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    logger = access_log.GunicornLogger(Config())
    logger.exception("Error handling request %s %s", "POST", f"/{WRONG}/{NUMBERS[0]}")
    logger.exception("Error handling request %s", f"/webhooks%2Finfobip%2F{WRONG}")
    assert [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()] == [
        "Error handling request POST /[unknown]",
        "Error handling request /webhooks/infobip/[secret]",
    ]


# --- who has to say what is secret


def test_a_provider_that_does_not_say_what_is_secret_cannot_be_used() -> None:
    members = {name: getattr(Infobip, name) for name in Infobip.__abstractmethods__}
    assert members == {}
    forgetful = type("Forgetful", Infobip.__bases__, {k: v for k, v in vars(Infobip).items() if k != "credentials"})
    with pytest.raises(TypeError, match=r"abstract method '?credentials"):
        forgetful()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_secret_that_a_provider_reads_is_among_its_secrets(
    provider: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = [name for name in SECRETS if name.startswith(provider.name.upper())]
    assert len(variables) == 2
    for name in variables:
        monkeypatch.setenv(name, SECRETS[name])
    said = provider.from_env(Env()).secrets()
    assert {secret for name in variables for secret in SECRETS[name].split(",")} <= set(said)


def test_no_command_line_of_ours_takes_a_secret_of_production() -> None:
    """Command lines can be seen by every user of a machine."""
    procfile = (Path(ROOT) / "Procfile").read_text()
    assert "$" not in procfile
