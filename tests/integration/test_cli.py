"""The commands: what they print, what they leave in the database, and how they end."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
import structlog

from receiver import cli, logs
from receiver.sandbox import Sandbox
from tests.integration.conftest import SECRET
from tests.integration.server import (
    LOCK_WAITS,
    Process,
    Web,
    count,
    environment,
    execute,
    finished,
    free_port,
    locked,
    running,
    sample,
    select,
    statuses,
    wait_for,
)

NOWHERE = "postgresql://nobody:planted@127.0.0.1:1/nothing"
Command = Callable[..., int]


@pytest.fixture
def command(reconciler: object, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """Runs a verb in this process, on an empty database; gives the exit status."""
    root = logging.getLogger()
    handlers, level, configuration = root.handlers[:], root.level, structlog.get_config()

    def run(*arguments: str, **variables: str) -> int:
        for name, value in {"DATABASE_URL": database_url, **variables}.items():
            monkeypatch.setenv(name, value)
        try:
            return cli.main(arguments)
        except SystemExit as end:
            return int(end.code or 0)

    yield run
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**configuration)
    logs._redactor.secrets = ()


Capture = pytest.CaptureFixture[str]


# --- exit status


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("status", "--nonsense"),
        ("prune", "extra"),
        ("prune", "--dry"),  # what deletes must not guess
        ("rebuild", "--from"),
        ("export", "--fr", "2026-03-01", "--to", "2026-04-01"),
        ("export", "--from", "x", "--to", "2026-04-01"),
        ("sandbox", "--drop", "2"),
        ("sandbox", "--see", "1"),
        ("sandbox", "--port", "99999999"),
        ("sandbox", "--rate", "-1"),
        ("sandbox", "--time-scale", "nan"),
        ("sandbox", "--target", "foo"),
        ("sandbox", "--target", "http://[foo"),
    ],
)
def test_wrong_use_ends_with_2(command: Command, capsys: Capture, arguments: tuple[str, ...]) -> None:
    assert command(*arguments) == 2
    assert "usage: receiver" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("--help",), ("prune", "--help"), ("sandbox", "--help")])
def test_help_ends_with_0(command: Command, capsys: Capture, arguments: tuple[str, ...]) -> None:
    assert command(*arguments) == 0
    assert "usage: receiver" in capsys.readouterr().out


VERBS = [
    ("migrate",),
    ("reconcile", "--once"),
    ("status",),
    ("replay",),
    ("rebuild",),
    ("prune",),
    ("forget", "41790000001"),
    ("export", "--from", "2026-03-01", "--to", "2026-04-01"),
]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("export", "--from", "2026-04-01", "--to", "2026-04-01"), "--from must be before --to"),
        (("export", "--from", "2026-04-01", "--to", "2026-03-01"), "--from must be before --to"),
        (("forget", ""), "the destination is empty"),
        (("forget", " "), "the destination is empty"),
    ],
)
def test_what_makes_no_sense_ends_with_2_in_one_line(
    command: Command, capsys: Capture, arguments: tuple[str, ...], said: str
) -> None:
    assert command(*arguments) == 2
    printed = capsys.readouterr()
    [line] = printed.err.splitlines()
    assert line.startswith(f"receiver: {arguments[0]}: ")
    assert said in line
    assert printed.out == ""


@pytest.mark.parametrize("arguments", VERBS)
def test_a_wrong_setting_ends_with_2_in_one_line_that_names_it(
    command: Command, capsys: Capture, arguments: tuple[str, ...]
) -> None:
    assert command(*arguments, MAX_BODY_BYTES="planted") == 2
    printed = capsys.readouterr()
    assert printed.err.splitlines() == ["receiver: MAX_BODY_BYTES invalid: Not a valid integer."]
    assert printed.out == ""


def test_every_wrong_setting_has_a_line_of_its_own(command: Command, capsys: Capture) -> None:
    assert command("status", MAX_BODY_BYTES="planted", PORT="planted") == 2
    lines = ["receiver: MAX_BODY_BYTES invalid: Not a valid integer.", "receiver: PORT invalid: Not a valid integer."]
    assert capsys.readouterr().err.splitlines() == lines


@pytest.mark.parametrize("arguments", [verb for verb in VERBS if verb[0] != "reconcile"])
def test_without_a_database_it_ends_with_1_in_one_line_without_a_secret(
    command: Command, capsys: Capture, arguments: tuple[str, ...]
) -> None:
    assert command(*arguments, DATABASE_URL=NOWHERE) == 1
    printed = capsys.readouterr()
    [line] = printed.err.splitlines()
    assert line.startswith("receiver: OperationalError: connection failed: ")
    assert "planted" not in printed.out + printed.err


@pytest.mark.parametrize("arguments", [verb for verb in VERBS if verb[0] not in ("migrate", "reconcile")])
def test_without_its_tables_it_ends_with_1_and_says_what_to_run(
    command: Command, capsys: Capture, empty_url: str, arguments: tuple[str, ...]
) -> None:
    assert command(*arguments, DATABASE_URL=empty_url) == 1
    printed = capsys.readouterr()
    assert printed.err == "receiver: the database is not migrated: run receiver migrate\n"
    assert printed.out == ""


def test_a_cycle_without_its_tables_ends_with_1(empty_url: str) -> None:
    status, printed = finished("reconcile", "--once", DATABASE_URL=empty_url)
    assert status == 1
    assert "the database is not migrated: run receiver migrate" in printed
    assert "UndefinedTable" not in printed


def test_a_reconciler_waits_for_the_release_that_migrates(variables: dict[str, str], empty_url: str) -> None:
    late = {**variables, "DATABASE_URL": empty_url, "RECONCILE_INTERVAL_SECONDS": "0.05"}
    with running("reconcile", **late) as reconciler:
        wait_for(lambda: reconciler.output.count("the database is not migrated") > 2)
        assert reconciler.is_alive()
        assert finished("migrate", DATABASE_URL=empty_url)[0] == 0
        wait_for(lambda: "pulled" in reconciler.output)
        reconciler.terminate()
        assert reconciler.wait() == 0
        assert "UndefinedTable" not in reconciler.output


def test_results_are_not_mixed_with_logs(command: Command, capsys: Capture) -> None:
    assert command("status") == 0
    logging.getLogger("a").warning("something to know")
    printed = capsys.readouterr()
    assert "something to know" in printed.err
    assert "something to know" not in printed.out


def test_an_interruption_is_one_short_line(database_url: str) -> None:
    with locked(database_url, "message_status"), running(*VERBS[-1], DATABASE_URL=database_url) as process:
        wait_for(lambda: select(database_url, LOCK_WAITS) == [1])
        os.kill(process.pid, signal.SIGINT)  # Ctrl-C
        assert process.wait() == 130
        assert process.output == "receiver: interrupted\n"


def status_into(output: int, database_url: str) -> tuple[int, bytes]:
    """Exit status and stderr of ``receiver status`` that prints into a descriptor."""
    done = subprocess.run(
        [sys.executable, "-m", "receiver", "status"],
        env=environment(DATABASE_URL=database_url),
        stdout=output,
        stderr=subprocess.PIPE,
        check=False,
        timeout=30,
    )
    return done.returncode, done.stderr


def test_a_reader_who_goes_away_is_no_error(database_url: str) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        assert status_into(write, database_url) == (141, b"")
    finally:
        os.close(write)


def test_what_cannot_be_written_is_one_short_line(database_url: str) -> None:
    with Path("/dev/full").open("wb") as full:
        assert status_into(full.fileno(), database_url) == (1, b"receiver: No space left on device\n")


@pytest.mark.parametrize("variables", [{"DATABASE_URL": NOWHERE}, {"INFOBIP_BASE_URL": "http://127.0.0.1:1"}])
def test_a_cycle_that_failed_ends_with_1(sandbox: Sandbox, variables: dict[str, str], database_url: str) -> None:
    given = {"DATABASE_URL": database_url, "INFOBIP_API_KEY": "planted", **variables}
    status, printed = finished("reconcile", "--once", **given)
    assert status == 1
    assert "planted" not in printed


@pytest.mark.parametrize(
    ("name", "value"),
    [("MAX_BODY_BYTES", "planted"), ("PORT", "planted"), ("WEB_CONCURRENCY", "0"), ("DATABASE_URL", "")],
)
def test_a_wrong_setting_ends_the_start_of_the_web_process_in_one_line(
    database_url: str, name: str, value: str
) -> None:
    web = Web(**{"DATABASE_URL": database_url, name: value})
    try:
        assert web.wait() == 2
        [line] = web.output.splitlines()
        assert line.startswith(f"receiver: {name} ")
        assert "planted" not in line
    finally:
        web.stop()


# --- the verbs


def test_migrate_makes_a_database_ready_and_can_be_repeated(command: Command, capsys: Capture, empty_url: str) -> None:
    assert command("status", DATABASE_URL=empty_url) == 1
    for _ in range(2):
        assert command("migrate", DATABASE_URL=empty_url, OVERDUE_AFTER_SECONDS="5") == 0
    assert command("status", DATABASE_URL=empty_url) == 0
    assert count(empty_url, "infobip_status_code") > 20
    assert select(empty_url, "select extract(epoch from value)::int from setting where name = 'overdue_after'") == [5]


def test_status_is_one_screen_of_what_an_operator_wants_to_know(
    web: Web, command: Command, cycle: Callable[..., bool], capsys: Capture, sandbox: Sandbox
) -> None:
    here = {
        "INFOBIP_BASE_URL": sandbox.url,
        "INFOBIP_CHANNELS": "sms",  # a gap speaks of the store that was asked last
        "OVERDUE_AFTER_SECONDS": "0.001",
        "MESSAGING_PLUS_API_KEY": "",
    }
    assert command("status", **here) == 0
    assert "Last push, of the last 7 days: -" in capsys.readouterr().out

    path = f"/webhooks/infobip/{SECRET}"
    web.post(path, sample("infobip/sms_reports.json"))
    web.post(path, {"results": [{"messageId": "m", "to": "41790000001", "status": {"groupId": 1}}, {}]})
    web.post(path, b"not json")
    sandbox.fault("/sms/1/reports", "error", status=401)
    assert not cycle(**here)
    capsys.readouterr()
    assert command("status", **here) == 0
    printed = capsys.readouterr().out
    squeezed = [" ".join(line.split()) for line in printed.splitlines()]
    assert any(line.startswith("infobip delivered 2") for line in squeezed)
    assert any(line.startswith("infobip pending 1") for line in squeezed)
    assert any(line.startswith("infobip pull is repeated after a failure 1 ") for line in squeezed)
    assert any(line.startswith("infobip /sms/1/reports ") and " http_error 401 " in line for line in squeezed)
    assert any(line.startswith("quarantined items 1 ") for line in squeezed)
    assert any(line.startswith("changes not in the rollups ") for line in squeezed)
    assert any(line.startswith("unreadable bodies 1 ") for line in squeezed)
    assert "Off: messaging_plus: pulling is off, missing: MESSAGING_PLUS_API_KEY" in squeezed
    assert "Last push, of the last 7 days: 20" in printed
    assert len(squeezed) < 50
    assert max(map(len, printed.splitlines())) <= 132
    assert "41790000001" not in printed


def test_replay_reads_again_what_could_not_be_read(command: Command, capsys: Capture, database_url: str) -> None:
    """As after a fix of the reader: here the bodies are mended instead."""
    bad = b'{"results": [{"messageId": "m-1", "to": "41790000001"}]}'
    columns = "received_at, provider, source, kind, body"
    for kind, body in [
        ("unreadable", sample("infobip/sms_reports.json")),
        ("unreadable", b"{"),
        ("delivery_report", bad),
    ]:
        insert = f"insert into payload ({columns}) values (now(), 'infobip', 'push', %s, %s)"  # noqa: S608
        execute(database_url, insert, kind, body)
    columns = "payload_id, item, provider, received_at, reason, content"
    values = "select max(id), 0, 'infobip', now(), 'x', '{}' from payload"
    execute(database_url, f"insert into quarantine ({columns}) {values}")
    assert command("replay") == 0
    assert capsys.readouterr().out == "3 bodies read again, 2 messages changed, 2 bodies still wait for a fix\n"
    assert statuses(database_url, "status::text, source") == [("delivered", "push")] * 2
    [reason] = select(database_url, "select reason from quarantine")
    assert reason.startswith("status.groupId")

    mended = bad.replace(b"}]", b', "status": {"groupId": 3}}]')
    execute(database_url, "update payload set body = %s where body = %s", mended, bad)
    assert command("replay") == 0
    assert "1 messages changed, 1 bodies still wait" in capsys.readouterr().out
    assert count(database_url, "quarantine") == 0


def test_rebuild_gives_the_same_rows_again(web: Web, command: Command, capsys: Capture, database_url: str) -> None:
    web.post(f"/webhooks/infobip/{SECRET}", sample("infobip/sms_reports.json"))
    rows = select(database_url, "select * from message_status order by message_id")
    assert command("rebuild") == 0
    assert capsys.readouterr().out == "2 messages computed again, 0 of them changed\n"
    execute(database_url, "update message_status set status = 'pending', price = 7 where destination like '%%31'")
    assert command("rebuild") == 0
    assert "1 of them changed" in capsys.readouterr().out
    assert select(database_url, "select * from message_status order by message_id") == rows


def test_prune_deletes_raw_bodies_past_their_retention_and_nothing_that_waits(
    web: Web, command: Command, capsys: Capture, database_url: str
) -> None:
    path = f"/webhooks/infobip/{SECRET}"
    bodies = [sample("infobip/sms_reports.json"), b'{"results": [{}]}', b"not json"]
    for body in bodies:
        web.post(path, body)
    execute(database_url, "update payload set received_at = now() - interval '8 days'")
    web.post(path, {"results": []})
    freed = f"1 raw bodies, {len(bodies[0])} bytes"
    assert command("prune", "--dry-run", RAW_RETENTION_DAYS="7") == 0
    assert capsys.readouterr().out == f"would delete {freed}\n"
    assert count(database_url, "payload") == 4
    assert command("prune", RAW_RETENTION_DAYS="9") == 0
    assert count(database_url, "payload") == 4
    assert command("prune", RAW_RETENTION_DAYS="7") == 0
    assert count(database_url, "payload") == 3
    assert count(database_url, "message_status") == count(database_url, "delivery_report") == 2


def test_long_work_shows_plain_lines_where_there_is_no_terminal(database_url: str) -> None:
    assert finished("rebuild", DATABASE_URL=database_url) == (0, "0 messages computed again, 0 of them changed\n")


def test_the_sandbox_is_a_process_that_needs_none_of_our_variables() -> None:
    port = free_port()
    with running("sandbox", "--port", str(port)) as process:
        wait_for(lambda: answers(process, f"http://127.0.0.1:{port}/dr-responses"))
        process.terminate()
        assert process.wait() == 0
        assert "sandbox_started" in process.output


def answers(process: Process, url: str) -> bool:
    assert process.is_alive(), process.output
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


def test_without_a_verb_the_process_ends_with_2() -> None:
    assert finished()[0] == 2
