"""Postgres, in our words: above this module nobody writes SQL."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec
import psycopg
from msgspec.structs import asdict
from psycopg.errors import ProgramLimitExceeded
from psycopg.rows import namedtuple_row

from receiver.arrivals import NOTHING, Arrival
from receiver.database import Connection, transaction
from receiver.packing import is_packed, opened
from receiver.reports import LONGEST_REJECTED, DeliveryReport, Reading, Rejected, content_digest
from receiver.settings import Settings
from receiver.statements import QUERIES

_REFUSALS = (psycopg.DataError, psycopg.IntegrityError, ProgramLimitExceeded, ValueError, ArithmeticError)
"""For these the content itself is to blame: a value that a column or an index does not take, or that Python cannot
write as text. Anything else is trouble of the database, and passes."""
MOST_REPORTS = 2_000
"""Reports that one statement takes: the largest push that a provider makes. Written at once, those of a much larger
body would need several times its size, in our memory and in the database's."""
_MOST_DESTINATIONS = 1_000
"""That are told of one message. A batch of Messaging Plus may have 100,000, which would take the database seconds."""
_TEXT_AT_ONCE = 2 * 1024 * 1024
"""Characters of callback data that one statement takes, in all its reports together. That is the one text that may be
long: 1,000 reports with the most that is allowed have twice as much, and are written by two statements."""


class Recorded(NamedTuple):
    """What became of one arrival, once committed."""

    payload_id: int
    received: int
    changed: int
    duplicates: int
    quarantined: int
    ignored: int

    def counts(self) -> dict[str, int]:
        """The answer of the webhooks."""
        return dict(zip(self._fields[1:], self[1:], strict=True))


def record(connection: Connection, arrivals: Sequence[Arrival]) -> list[Recorded]:
    """Write all that the arrivals hold in one statement, which is one transaction of its own in autocommit mode.

    Raises ``psycopg.Error``; then nothing of it is written.
    """
    reports = [_report(n, report) for n, arrival in enumerate(arrivals, 1) for report in arrival.reading.reports]
    parameters = {
        "arrivals": msgspec.json.encode([_arrival(n, arrival) for n, arrival in enumerate(arrivals, 1)]).decode(),
        "bodies": [b"" if arrival.payload_id else arrival.body for arrival in arrivals],
        "reports": f"[{b','.join(reports).decode()}]",
        "rejects": _array(
            [_reject(n, a.provider, item) for n, a in enumerate(arrivals, 1) for item in a.reading.rejected]
        ),
        "batches": _array(
            [
                {"provider": arrival.provider, "source": arrival.source, **batch._asdict()}
                for arrival in arrivals
                for batch in arrival.reading.batches
            ]
        ),
    }
    rows = with_bodies(connection, "record", parameters)
    return [_recorded(arrivals[n - 1].reading, *row) for n, *row in sorted(rows)]


def record_each(connection: Connection, arrivals: Sequence[Arrival]) -> list[Recorded]:
    """Record arrivals so that nothing that the database refuses (and no reader noticed) fails its neighbours.

    A refused report goes to quarantine, its neighbours in the body are kept; where that does not help, the raw body is.
    Changes the ``reading`` and ``error`` of such an arrival. Raises ``psycopg.Error`` when the database cannot commit
    at all.
    """
    if not arrivals:  # no answer of a provider could be read: there is nothing to ask the database
        return []
    is_large = any(_is_large(arrival.reading.reports) for arrival in arrivals)
    if is_large and len(arrivals) == 1:
        return [_record_in_parts(connection, arrivals[0])]
    try:
        if not is_large:
            return record(connection, arrivals)
    except _REFUSALS as refusal:
        if len(arrivals) == 1:
            return [_record_what_is_accepted(connection, arrivals[0], refusal)]
    return [recorded for arrival in arrivals for recorded in record_each(connection, [arrival])]


def _is_large(reports: Sequence[DeliveryReport]) -> bool:
    text = sum(len(report.callback_data or "") for report in reports)
    return len(reports) > MOST_REPORTS or (len(reports) > 1 and text > _TEXT_AT_ONCE)


def _parts(reports: Sequence[DeliveryReport]) -> Iterator[list[DeliveryReport]]:
    part: list[DeliveryReport] = []
    text = 0
    for report in reports:
        length = len(report.callback_data or "")
        if part and (len(part) == MOST_REPORTS or text + length > _TEXT_AT_ONCE):
            yield part
            part, text = [], 0
        part.append(report)
        text += length
    yield part


def _record_in_parts(connection: Connection, arrival: Arrival) -> Recorded:
    """Record a large body part by part, each a transaction of its own.

    Only the last part marks the body as read and writes what was refused, so that a crash in between leaves a body that
    is read again as a whole.
    """
    whole = arrival.reading
    kept: list[DeliveryReport] = []
    rejected = whole.rejected
    changed = duplicates = 0
    parts = list(_parts(whole.reports))
    for number, reports in enumerate(parts, 1):
        is_last = number == len(parts)
        reading = whole._replace(
            reports=reports,
            rejected=rejected if is_last else [],
            batches=whole.batches if number == 1 else (),
        )
        part = replace(arrival, reading=reading, is_part=not is_last)
        [recorded] = record_each(connection, [part])
        arrival.payload_id, arrival.error = recorded.payload_id, part.error
        if part.error:
            arrival.reading = part.reading
            return recorded
        kept += part.reading.reports
        rejected = part.reading.rejected if is_last else [*rejected, *part.reading.rejected]
        changed, duplicates = changed + recorded.changed, duplicates + recorded.duplicates
    arrival.reading = whole._replace(reports=kept, rejected=rejected)
    received = len(kept) + len(rejected) + whole.ignored
    return recorded._replace(received=received, changed=changed, duplicates=duplicates)


def _record_what_is_accepted(connection: Connection, arrival: Arrival, refusal: Exception) -> Recorded:
    kept, refused = [], []
    for report in arrival.reading.reports:
        reason = _refusal_of(connection, arrival, report)
        if reason is None:
            kept.append(report)
        else:
            text = json.dumps(asdict(report), default=str)[:LONGEST_REJECTED]
            refused.append(Rejected(report.item, reason, text))
    if refused:
        arrival.reading = arrival.reading._replace(reports=kept, rejected=[*arrival.reading.rejected, *refused])
        try:
            return record(connection, [arrival])[0]
        except _REFUSALS as more:
            refusal = more
    arrival.reading, arrival.error = NOTHING, _refusal(refusal)
    return record(connection, [arrival])[0]


def _refusal_of(connection: Connection, arrival: Arrival, report: DeliveryReport) -> str | None:
    probe = Arrival(arrival.provider, arrival.source, b"", Reading("probe", [report], []))
    try:
        with transaction(connection, force_rollback=True):
            record(connection, [probe])
    except _REFUSALS as refusal:
        return _refusal(refusal)
    return None


def _refusal(error: Exception) -> str:
    return f"refused by the database: {type(error).__name__}"


def _array(items: list[dict[str, Any]]) -> str:
    """As ASCII: what was refused may hold text that UTF-8 cannot."""
    return json.dumps(items) if items else "[]"


def _arrival(n: int, arrival: Arrival) -> dict[str, Any]:
    return {
        "arrival": n,
        "payload_id": arrival.payload_id,
        "received_at": arrival.received_at and arrival.received_at.isoformat(),
        "provider": arrival.provider,
        "source": arrival.source,
        "kind": None if arrival.is_part and not arrival.error else arrival.reading.kind,
        "channel": arrival.channel,
        "content_type": _plain(arrival.content_type),
        "error": arrival.error or arrival.cut,
    }


def _plain(header: str) -> str:
    """A header as Postgres text takes it: WSGI headers are Latin-1 and may hold anything but line ends."""
    return header.replace("\x00", "")[:200]


def _report(n: int, report: DeliveryReport) -> bytes:
    """As JSON. It is encoded once, for the digest and for the database."""
    encoded = report.encoded()
    return f'{{"arrival":{n},"digest":"\\\\x{content_digest(encoded).hex()}",'.encode() + encoded[1:]


def _reject(n: int, provider: str, rejected: Rejected) -> dict[str, Any]:
    return {
        "arrival": n,
        "provider": provider,
        "item": rejected.item,
        "reason": rejected.reason,
        "content": rejected.text,
    }


def _recorded(reading: Reading, payload_id: int, fresh: int, changed: int) -> Recorded:
    good, bad = len(reading.reports), len(reading.rejected)
    return Recorded(payload_id, good + bad + reading.ignored, changed, good - fresh, bad, reading.ignored)


def query(connection: Connection, statement: str, /, **parameters: Any) -> list[Any]:
    """The rows of a named statement, as named tuples."""
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        cursor.execute(QUERIES[statement], parameters)
        return cursor.fetchall() if cursor.description else []


def with_bodies(connection: Connection, statement: str, parameters: dict[str, Any]) -> list[Any]:
    """The rows of a named statement that stores ``bodies``, as tuples.

    It gives none where somebody is forgotten and a body is packed, as the database cannot look into it: then it gets
    them once more, in plain.
    """
    rows = connection.execute(QUERIES[statement], parameters).fetchall()
    if not rows and any(is_packed(body) for body in parameters["bodies"]):
        plain = [opened(body) for body in parameters["bodies"]]
        rows = connection.execute(QUERIES[statement], {**parameters, "bodies": plain}).fetchall()
    return rows


def execute(connection: Connection, statement: str, /, **parameters: Any) -> int:
    """Run a named statement; gives the number of rows that it touched."""
    return connection.execute(QUERIES[statement], parameters).rowcount


def message(connection: Connection, provider: str, message_id: str) -> str | None:
    """Current status and history of a message at its destinations, as JSON text; None where it is unknown."""
    rows = query(connection, "message", provider=provider, message_id=message_id, limit=_MOST_DESTINATIONS)
    return rows[0][0] if rows else None


def publish_settings(connection: Connection, settings: Settings) -> None:
    """Tell the views what this process was started with. Raises ``psycopg.Error``."""
    for name in ("overdue_after", "give_up_after", "reconcile_interval"):
        execute(connection, "publish_setting", name=name, value=getattr(settings, name))
