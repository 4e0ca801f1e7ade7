"""What a warehouse gets: every message of a time once, exactly, in memory that does not grow with their number."""

from __future__ import annotations

import csv
import io
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.server import LOCK_WAITS, environment, execute, select, wait_for

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
LAST_DAY = ("--from", "2026-03-29", "--to", "2026-03-30")
_MANY = 100_000
_MEGABYTES = {"csv": 75, "parquet": 280}
"""Taken are 52 and 200, most of it programs; with all these messages in memory it would be 96 and 360."""


@pytest.fixture
def messages(database_url: str) -> str:
    """Four messages of 28 and 29 March: sent just before and at midnight, without sent_at, and odd in every text."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            """
            insert into message_status (provider, message_id, destination, status, is_final, sent_at, price, sender,
                                        source, report_count, has_conflict, first_seen_at, decided_at,
                                        updated_at)
            values
              ('infobip', 'before', '1', 'sent', false, '2026-03-28T23:59:59.999Z', null, null, 'push', 1, false,
               '2026-03-29T00:00:01Z', '2026-03-29T00:00:01Z', '2026-03-29T00:00:01Z'),
              ('infobip', 'midnight', '2', 'delivered', true, '2026-03-29T02:00+02:00', 0.0001,
               'a "b", c' || e'\n' || 'ü', 'push', 1, false, '2026-03-29T00:00:01Z', '2026-03-29T00:00:01Z',
               '2026-03-29T00:00:01Z'),
              ('messaging_plus', 'no times', '3', 'delivered', true, null, null, '', 'pull', 1, true,
               '2026-03-29T12:00:00.123456Z', '2026-03-29T12:00Z', '2026-03-29T12:00Z'),
              ('messaging_plus', 'next day', '4', 'pending', false, null, null, null, 'pull', 1, false,
               '2026-03-30T00:00Z', '2026-03-30T00:00Z', '2026-03-30T00:00Z')
            """
        )
    return database_url


@pytest.fixture
def run(messages: str) -> Run:
    def run(*arguments: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "receiver", "export", *arguments],
            env={**environment(), "DATABASE_URL": messages, "PGTZ": "Asia/Tokyo"},
            capture_output=True,
            check=False,
            timeout=50,
            **more,
        )

    return run


def add_messages(url: str, number: int) -> None:
    execute(
        url,
        """
        insert into message_status (provider, message_id, destination, status, is_final, sent_at, sender,
                                    callback_data, source, report_count, has_conflict, first_seen_at, decided_at,
                                    updated_at)
        select 'infobip', n, '5', 'delivered', true, '2026-03-29T12:00Z', repeat('s', 20),
               repeat(md5(n::text), 8), 'push', 1, false, '2026-03-29T12:00Z', '2026-03-29T12:00Z',
               '2026-03-29T12:00Z'
        from generate_series(1, %s) n
        """,
        number,
    )


def test_csv_has_the_messages_of_these_days_and_nothing_else(run: Run) -> None:
    done = run(*LAST_DAY)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode(), newline="")))
    assert sorted(row["message_id"] for row in rows) == ["midnight", "no times"]
    odd = next(row for row in rows if row["message_id"] == "midnight")
    assert (odd["sender"], odd["price"], odd["sent_at"]) == ('a "b", c\nü', "0.0001", "2026-03-29 00:00:00+00")
    assert done.stderr == b"", "no progress bar where there is no terminal"


def test_a_file_is_there_when_it_is_whole(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "messages.csv"
    assert run(*LAST_DAY, "--output", str(target)).returncode == 0
    assert target.read_bytes() == run(*LAST_DAY).stdout
    assert [file.name for file in tmp_path.iterdir()] == ["messages.csv"]


def test_a_pipe_gets_the_rows_and_stays_a_pipe(run: Run, tmp_path: Path) -> None:
    """Or a device: as root the finished file would take its place."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        assert run(*LAST_DAY, "--output", str(pipe)).returncode == 0
        assert reader.communicate(timeout=10)[0] == run(*LAST_DAY).stdout
    assert pipe.is_fifo()
    assert [file.name for file in tmp_path.iterdir()] == ["pipe"]


def test_a_link_stays_one_and_its_file_is_replaced(run: Run, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real, link = tmp_path / "elsewhere" / "real.csv", tmp_path / "messages.csv"
    real.write_text("old")
    link.symlink_to(real)
    assert run(*LAST_DAY, "--output", str(link)).returncode == 0
    assert link.is_symlink()
    assert real.read_bytes() == run(*LAST_DAY).stdout
    assert [file.name for file in real.parent.iterdir()] == ["real.csv"]


def test_only_its_owner_reads_a_file(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "messages.csv"
    assert run(*LAST_DAY, "--output", str(target)).returncode == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_two_may_write_to_one_name(messages: str, tmp_path: Path) -> None:
    """Each has a file of its own until it is whole."""
    target = str(tmp_path / "messages.csv")
    lock = "lock table message_status in access exclusive mode"
    with (
        ThreadPoolExecutor(1) as pool,
        ExitStack() as running,
        psycopg.connect(messages) as connection,
        psycopg.connect(messages) as again,
    ):
        connection.execute(lock)
        exports = [
            running.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "receiver", "export", *LAST_DAY, "--output", target],
                    env={**environment(), "DATABASE_URL": messages},
                )
            )
            for _ in range(2)
        ]
        wait_for(lambda: select(messages, LOCK_WAITS) == [2])
        # Next in line, so that both have counted and opened a file when they come to read.
        behind = pool.submit(again.execute, lock)
        wait_for(lambda: select(messages, LOCK_WAITS) == [3])
        connection.rollback()
        behind.result()
        wait_for(lambda: select(messages, LOCK_WAITS) == [2])
        assert len(list(tmp_path.glob("*.part"))) == 2
        again.rollback()
        assert [export.wait(20) for export in exports] == [0, 0]
    assert [file.name for file in tmp_path.iterdir()] == ["messages.csv"]


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_a_reader_who_has_enough_is_no_error(run: Run, messages: str, file_format: str) -> None:
    """As with ``| head -1``."""
    if file_format == "parquet":
        pytest.importorskip("pyarrow")
    add_messages(messages, 30_000)
    with subprocess.Popen(
        [sys.executable, "-m", "receiver", "export", *LAST_DAY, "--format", file_format],
        env={**environment(), "DATABASE_URL": messages},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as export:
        assert export.stdout is not None
        assert export.stderr is not None
        assert export.stdout.read(4)
        export.stdout.close()
        assert export.stderr.read() == b""
        assert export.wait(20) == 141


def test_parquet_keeps_types_and_every_digit(run: Run, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    target = tmp_path / "messages.parquet"
    done = run(*LAST_DAY, "--format", "parquet", "--output", str(target))
    assert done.returncode == 0, done.stderr
    rows = {row["message_id"]: row for row in parquet.read_table(target).to_pylist()}
    assert rows["midnight"]["price"] == Decimal("0.0001")
    assert rows["midnight"]["sent_at"] == datetime(2026, 3, 29, tzinfo=UTC)
    assert rows["midnight"]["status"] == "delivered"
    assert rows["no times"]["has_conflict"] is True
    assert rows["no times"]["sent_at"] is None
    assert rows["no times"]["first_seen_at"] == datetime(2026, 3, 29, 12, 0, 0, 123456, tzinfo=UTC)
    assert set(rows) == {"midnight", "no times"}


def test_an_empty_period_is_a_header_or_an_empty_table(run: Run, tmp_path: Path) -> None:
    assert run("--from", "2020-01-01", "--to", "2020-01-02").stdout.startswith(b"provider,channel,message_id,")
    parquet = pytest.importorskip("pyarrow.parquet")
    target = tmp_path / "none.parquet"
    assert (
        run("--from", "2020-01-01", "--to", "2020-01-02", "--format", "parquet", "--output", str(target)).returncode
        == 0
    )
    assert parquet.read_table(target).num_rows == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", "yesterday", "--to", "2026-01-01"), b"--from: must be a day or a time, such as 2026-03-01"),
        (("--to", "2026-01-01"), b"--from"),
        ((*LAST_DAY, "--format", "x"), b"--format"),
    ],
)
def test_wrong_use_is_told(run: Run, arguments: tuple[str, ...], said: bytes) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert said in done.stderr


def test_a_file_that_cannot_be_written_is_told_in_one_line(run: Run, tmp_path: Path) -> None:
    for target in (str(tmp_path / "none" / "messages.csv"), str(tmp_path), "/dev/full"):
        done = run(*LAST_DAY, "--output", target)
        assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_memory_does_not_grow_with_the_messages(run: Run, messages: str, tmp_path: Path, file_format: str) -> None:
    if file_format == "parquet":
        pytest.importorskip("pyarrow")
    add_messages(messages, _MANY)
    target = tmp_path / "many"
    code = (  # not getrusage, which remembers the parent's
        "import re, sys; from receiver.cli import main; status = main(sys.argv[1:]);"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "export", *LAST_DAY, "--format", file_format, "--output", str(target)],
        env={**environment(), "DATABASE_URL": messages},
        capture_output=True,
        check=True,
        timeout=50,
    )
    assert int(done.stdout) / 1024 < _MEGABYTES[file_format]
    if file_format == "csv":
        with target.open(newline="") as lines:
            assert sum(1 for _ in csv.reader(lines)) == _MANY + 3
