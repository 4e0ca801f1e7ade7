"""The commands: ``python -m receiver VERB``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import structlog
from tqdm import tqdm

from receiver import logs, overview, settings, store
from receiver.database import Connection, connect
from receiver.errors import ReceiverError, SettingsError
from receiver.migrate import migrate
from receiver.reconciler import Reconciler, publish_settings
from receiver.replay import replay

log = structlog.get_logger("receiver")

_STOP_SECONDS = 8.0
"""Platforms kill 10 to 30 seconds after SIGTERM; whatever is not done by then is found by the next process."""
_CHUNK = 1_000


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; gives the exit status: 0, 1 (failed), 2 (wrong use)."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments[:1] == ["sandbox"]:  # has flags of its own, and needs none of our settings
        from receiver.sandbox import main as sandbox  # noqa: PLC0415 - what production never runs is not loaded there

        return sandbox(arguments[1:])
    options = _parser().parse_args(arguments)
    command: Callable[[settings.Settings, argparse.Namespace], int] = options.command
    try:
        configuration = settings.load()
        logs.configure(configuration.secrets())
        return command(configuration, options)
    except SettingsError as error:
        print(f"receiver: {error}", file=sys.stderr)
        return 2
    except (ReceiverError, psycopg.Error) as error:
        print(f"receiver: {type(error).__name__}: {logs.redact(str(error)).strip()}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="receiver", description="Delivery reports, one right row per message.")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def verb(
        name: str, command: Callable[[settings.Settings, argparse.Namespace], int], help: str
    ) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=help, description=help)
        added.set_defaults(command=command)
        return added

    verb("migrate", _migrate, "bring the database to what this release needs")
    once = verb("reconcile", _reconcile, "pull what the push did not bring, again and again")
    once.add_argument("--once", action="store_true", help="one cycle, for a scheduler")
    verb("status", _status, "what an operator wants to know, on one screen")
    verb("replay", _replay, "read unreadable bodies and quarantined items again, after a fix")
    verb("rebuild", _rebuild, "compute message_status again from the history")
    dry = verb("prune", _prune, "delete raw bodies older than RAW_RETENTION_DAYS")
    dry.add_argument("--dry-run", action="store_true", help="show what would be freed and delete nothing")
    verbs.add_parser("sandbox", help="simulate both providers, with flags of its own: receiver sandbox --help")
    return parser


def _migrate(configuration: settings.Settings, _: argparse.Namespace) -> int:
    applied = migrate(configuration.database_url)
    with connect(configuration.database_url) as connection:
        publish_settings(connection, configuration)
    log.info("database_is_current", applied=len(applied))
    return 0


def _reconcile(configuration: settings.Settings, options: argparse.Namespace) -> int:
    settings.announce(configuration)
    reconciler = Reconciler(configuration)
    outcomes: list[bool] = []

    def work() -> None:
        try:
            outcomes.append(reconciler.cycle() if options.once else reconciler.run())
        finally:
            reconciler.stop.set()

    # Signals wake the main thread only, so the work is done in another.
    worker = threading.Thread(target=work, name="reconciler", daemon=True)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: reconciler.stop.set())
    worker.start()
    reconciler.stop.wait()
    worker.join(_STOP_SECONDS)
    log.info("stopped", clean=not worker.is_alive())
    sys.stdout.flush()
    os._exit(0 if outcomes == [True] else 1)  # not waiting for threads that hang in a provider's silence


def _status(configuration: settings.Settings, _: argparse.Namespace) -> int:
    with connect(configuration.database_url) as connection:
        print(overview.render(connection, configuration))
    return 0


def _replay(configuration: settings.Settings, _: argparse.Namespace) -> int:
    with connect(configuration.database_url) as connection:
        [(total,)] = store.query(connection, "count_to_replay")
        with _progress(total, "replay") as bar:
            outcomes = replay(connection, configuration.providers, bar.update)
        [(left,)] = store.query(connection, "count_to_replay")
    changed = sum(outcome.changed for outcome in outcomes)
    print(f"{len(outcomes)} bodies read again, {changed} messages changed, {left} bodies still wait for a fix")
    return 0


def _rebuild(configuration: settings.Settings, _: argparse.Namespace) -> int:
    with connect(configuration.database_url) as connection:
        [(total,)] = store.query(connection, "count_messages")
        messages, changed = 0, 0
        key = {"provider": "", "message_id": "", "destination": ""}
        with _progress(total, "rebuild") as bar:
            while True:
                [row] = store.query(connection, "rebuild", **key, limit=_CHUNK)
                if not row.messages:
                    break
                key = {name: getattr(row, name) for name in key}
                messages, changed = messages + row.messages, changed + row.changed
                bar.update(row.messages)
    print(f"{messages} messages computed again, {changed} of them changed")
    return 0


def _prune(configuration: settings.Settings, options: argparse.Namespace) -> int:
    with connect(configuration.database_url) as connection:
        [(payloads, octets)] = store.query(connection, "prunable", retention=configuration.raw_retention)
        if options.dry_run:
            print(f"would delete {payloads} raw bodies, {octets} bytes")
            return 0
        deleted = 0
        with _progress(payloads, "prune") as bar:
            while count := _prune_some(connection, configuration):
                deleted += count
                bar.update(count)
    print(f"deleted {deleted} raw bodies")
    return 0


def _prune_some(connection: Connection, configuration: settings.Settings) -> int:
    return store.execute(connection, "prune", retention=configuration.raw_retention, limit=_CHUNK)


def _progress(total: int, what: str) -> tqdm[Any]:
    return tqdm(total=total or None, desc=what, unit="", disable=None)
