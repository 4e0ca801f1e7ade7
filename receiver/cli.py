"""The commands: ``python -m receiver VERB``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
import structlog
from tqdm import tqdm

from receiver import export, logs, overview, privacy, rebuild, settings, store
from receiver.database import Connection, connect
from receiver.errors import ReceiverError, SettingsError, WrongUse
from receiver.memory import give_back_large_blocks
from receiver.migrate import migrate, pending
from receiver.reconciler import Reconciler
from receiver.replay import replay

log = structlog.get_logger("receiver")

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_STOP_SECONDS = 7.0
"""Platforms kill 10 to 30 seconds after SIGTERM; whatever is not done by then is found by the next process."""
_PATIENCE = 30.0
"""Seconds that the reconciler gives a database to say whether it is migrated."""
_SIGNALLED = 128
"""Exit status of a process that a signal has ended, less the signal: as shells give it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; gives the exit status: 0, 1 (failed), 2 (wrong use), or as if a signal had ended it.

    130 is Ctrl-C, 141 that nobody reads its output any more (``| head``).
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments[:1] == ["sandbox"]:  # has flags of its own, and needs none of our settings
        from receiver.sandbox import main as sandbox  # noqa: PLC0415 - what production never runs is not loaded there

        return sandbox(arguments[1:])
    options = _parser().parse_args(arguments)
    command: Callable[[settings.Settings, argparse.Namespace], int] = options.command
    try:
        configuration = settings.load()
        # What others print are results, and no log line belongs into those.
        logs.configure(configuration.secrets(), sys.stdout if command in (_migrate, _reconcile) else sys.stderr)
        status = command(configuration, options)
        sys.stdout.flush()
        return status
    except (SettingsError, WrongUse) as error:
        for line in str(error).splitlines():
            print(f"receiver: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("receiver: interrupted", file=sys.stderr)
        return _SIGNALLED + signal.SIGINT
    except BrokenPipeError:
        _print_no_more()
        return _SIGNALLED + signal.SIGPIPE
    except (ReceiverError, psycopg.Error) as error:
        print(f"receiver: {_told(error)}", file=sys.stderr)
    except OSError as error:  # the disk is full, most likely
        _print_no_more()
        print(f"receiver: {logs.redact(error.strerror or str(error))}", file=sys.stderr)
    return 1


def _print_no_more() -> None:
    """Nothing of what Python would still write when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="receiver", description="Delivery reports, one correct row for each message.", allow_abbrev=False
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def verb(
        name: str, command: Callable[[settings.Settings, argparse.Namespace], int], help: str
    ) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=help, description=help, allow_abbrev=False)
        added.set_defaults(command=command)
        return added

    verb("migrate", _migrate, "bring the database to what this release needs")
    once = verb("reconcile", _reconcile, "pull what the push did not bring, again and again")
    once.add_argument("--once", action="store_true", help="one cycle, for a scheduler")
    verb("status", _status, "what an operator wants to know, on one screen")
    verb("replay", _replay, "read unreadable bodies and quarantined items again, after a fix")
    again = verb("rebuild", _rebuild, "compute message_status again from the history")
    again.add_argument(
        "--from-payload", action="store_true", help="then add the reports of stored bodies that it lacks"
    )
    dry = verb("prune", _prune, "delete what is older than RAW_RETENTION_DAYS and HISTORY_RETENTION_DAYS")
    dry.add_argument("--dry-run", action="store_true", help="show what would be freed and delete nothing")
    one = verb("forget", _forget, "erase a destination from every table, for good")
    one.add_argument(
        "destination", help="- reads it from standard input: arguments are seen by every user of the machine"
    )
    out = verb("export", _export, "write messages for a warehouse; they hold phone numbers and callback data")
    out.add_argument(
        "--from", dest="since", type=_moment, required=True, metavar="DAY", help="sent on that day or later (UTC)"
    )
    out.add_argument(
        "--to", dest="until", type=_moment, required=True, metavar="DAY", help="sent before that day (UTC)"
    )
    out.add_argument("--format", choices=export.FORMATS, default="csv")
    out.add_argument("--output", default=export.STDOUT, metavar="FILE", help="standard output unless it is given")
    verbs.add_parser("sandbox", help="simulate both providers, with flags of its own: receiver sandbox --help")
    return parser


@contextmanager
def _database(configuration: settings.Settings, patience: float | None = None) -> Iterator[Connection]:
    """A database that is migrated; raises ``ReceiverError`` otherwise."""
    with connect(configuration.database_url, patience) as connection:
        if pending(connection):
            raise ReceiverError("the database is not migrated: run receiver migrate")
        yield connection


def _told(error: Exception) -> str:
    """An error in one line: what Postgres and libpq say after the first are guesses and repetitions."""
    line = logs.redact(str(error)).strip().partition("\n")[0]
    return line if isinstance(error, ReceiverError) else f"{type(error).__name__}: {line}"


def _migrate(configuration: settings.Settings, _: argparse.Namespace) -> int:
    applied = migrate(configuration.database_url)
    with connect(configuration.database_url) as connection:
        store.publish_settings(connection, configuration)
    log.info("database_is_current", applied=len(applied))
    return 0


def _reconcile(configuration: settings.Settings, options: argparse.Namespace) -> int:
    settings.announce(configuration)
    give_back_large_blocks()
    reconciler = Reconciler(configuration)
    interval = configuration.reconcile_interval.total_seconds()
    outcomes: list[bool] = []

    def work() -> None:
        try:
            if options.once:
                outcomes.append(_is_ready(configuration) and reconciler.cycle())
                return
            # The release that migrates may still be under way, and a database that is away comes back.
            while not _is_ready(configuration) and not reconciler.stop.wait(interval):
                pass
            outcomes.append(reconciler.run())
        finally:
            reconciler.stop.set()

    def listen() -> None:
        signal.sigwait(_STOP_SIGNALS)
        reconciler.stop.set()

    # Blocked in all threads and waited for in one: a handler would run in the middle of whatever holds a lock.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    worker = threading.Thread(target=work, name="reconciler", daemon=True)
    for thread in (worker, threading.Thread(target=listen, name="signals", daemon=True)):
        thread.start()
    reconciler.stop.wait()
    worker.join(_STOP_SECONDS)
    log.info("stopped", clean=not worker.is_alive())
    sys.stdout.flush()
    os._exit(0 if outcomes == [True] else 1)  # not waiting for threads that hang in a provider's silence


def _is_ready(configuration: settings.Settings) -> bool:
    try:
        with _database(configuration, _PATIENCE):
            return True
    except (ReceiverError, psycopg.Error) as error:
        log.warning("database_is_not_ready", error=_told(error))
        return False


def _status(configuration: settings.Settings, _: argparse.Namespace) -> int:
    with _database(configuration) as connection:
        print(overview.render(connection, configuration))
    return 0


def _replay(configuration: settings.Settings, _: argparse.Namespace) -> int:
    with _database(configuration) as connection:
        [(total,)] = store.query(connection, "count_to_replay")
        with _progress(total, "replay") as bar:
            outcomes = replay(connection, configuration.providers, bar.update)
        [(left,)] = store.query(connection, "count_to_replay")
    changed = sum(outcome.changed for outcome in outcomes)
    print(f"{len(outcomes)} bodies read again, {changed} messages changed, {left} bodies still wait for a fix")
    return 0


def _rebuild(configuration: settings.Settings, options: argparse.Namespace) -> int:
    with _database(configuration) as connection:
        [(total,)] = store.query(connection, "count_messages")
        with _progress(total, "rebuild") as bar:
            messages, changed = rebuild.from_history(connection, bar.update)
        print(f"{messages} messages computed again, {changed} of them changed")
        if options.from_payload:
            [(first, last)] = store.query(connection, "stored_ids")
            with _progress(last - first + 1, "bodies") as bar:
                bodies, missing = rebuild.from_payload(connection, configuration.providers, first, last, bar.update)
            print(f"{bodies} bodies read again, {missing} of their reports were missing")
    return 0


def _prune(configuration: settings.Settings, options: argparse.Namespace) -> int:
    with _database(configuration) as connection:
        amounts = privacy.prunable(connection, configuration)
        if not options.dry_run:
            with _progress(sum(amount.number for amount in amounts), "prune") as bar:
                amounts = privacy.prune(connection, configuration, bar.update)
    # Raw bodies are always told of, the others where there are any.
    for amount in (amounts[0], *(amount for amount in amounts[1:] if amount.number)):
        print("would delete" if options.dry_run else "deleted", amount)
    return 0


def _forget(configuration: settings.Settings, options: argparse.Namespace) -> int:
    destination = sys.stdin.readline() if options.destination == "-" else options.destination
    if not destination.strip():
        raise WrongUse("forget: the destination is empty")
    with _database(configuration) as connection:
        [(total,)] = store.query(connection, "count_payloads")
        with _progress(total, "forget") as bar:
            erased = privacy.forget(connection, destination, bar.update)
    print(
        f"changed {erased.messages} messages, {erased.reports} reports, {erased.bodies} raw bodies, "
        f"{erased.other_rows} other rows"
    )
    return 0


def _export(configuration: settings.Settings, options: argparse.Namespace) -> int:
    period = export.Period(options.since, options.until)
    if period.since >= period.until:
        raise WrongUse("export: --from must be before --to, a day that is not exported")
    with (
        _database(configuration) as connection,
        _progress(export.count(connection, period), "export") as bar,
    ):
        export.export(connection, options.output, options.format, period, bar.update)
    return 0


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            "must be a day or a time, such as 2026-03-01 or 2026-03-01T12:00+01:00"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _progress(total: int, what: str) -> tqdm[Any]:
    return tqdm(total=total or None, desc=what, unit="", disable=None)
