"""What a body of 16 MiB, the largest that is taken, adds to the memory of an idle web process."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import bodies, service
from benchmarks.figures import Figure, Table

_ROUNDS = 3
_SIZE = 16 * 1024 * 1024
_BUCKET = 2_000
"""The largest push that Infobip makes."""
_LIMIT = "allowed"
ALLOWED_MIB = 150.0


def run() -> list[Table]:
    """MiB of resident memory at the peak, over the idle process."""
    cases = {
        "json, 2,000 reports with long texts": full_bucket(bodies.as_json),
        "json, as many usual reports as fit": full_of_usual(bodies.as_json),
        "xml, 2,000 reports with long texts": full_bucket(bodies.as_xml("reportResponse")),
        "xml, as many usual reports as fit": full_of_usual(bodies.as_xml("reportResponse")),
    }
    figures = [Figure(_LIMIT, "MiB", [ALLOWED_MIB])]
    idle: list[float] = []
    with service.database() as url:
        for number, (what, (body, reports)) in enumerate(cases.items()):
            rounds = []
            for round_ in range(_ROUNDS):
                before, peak = before_and_peak(
                    url, body.replace(bodies.PREFIX, b"%010d" % (number * _ROUNDS + round_)), reports
                )
                idle.append(before)
                rounds.append(peak - before)
            remark = f"{len(body) / 2**20:.1f} MiB, {reports:,} reports"
            figures.append(Figure(what, "MiB", rounds, _LIMIT, remark))
    return [Table("Memory over the idle process", [Figure("idle process", "MiB", idle), *figures])]


def before_and_peak(url: str, body: bytes, reports: int) -> tuple[float, float]:
    """Resident memory of a fresh web process before a push and at its peak, in MiB; the reports must be new."""
    # More than the usual 5 s: the machine may be slow, and it is memory that is measured.
    with service.web(url, WEB_CONCURRENCY="1", WEBHOOK_DEADLINE_SECONDS="100") as web:
        [worker] = web.workers()
        connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=120)
        try:
            _post(connection, b'{"results":[]}', 0)  # the connection to the database is part of an idle process
            before = _memory(worker, "VmRSS")
            _post(connection, body, reports)
            return before, _memory(worker, "VmHWM")
        finally:
            connection.close()


def _post(connection: http.client.HTTPConnection, body: bytes, reports: int) -> None:
    connection.request("POST", service.PATH, body)
    response = connection.getresponse()
    answer = response.read()
    if response.status != 200 or f'"changed":{reports},' not in answer.decode():
        raise RuntimeError(f"not recorded: {response.status} {answer[:200]!r}")


def _memory(pid: int, field: str) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith(f"{field}:"))


def full_bucket(make: Callable[[Iterator[dict[str, Any]]], bytes]) -> tuple[bytes, int]:
    """The largest push there is, with texts as long as 16 MiB allow: twice what Infobip allows; and its 2,000."""
    size = _SIZE // _BUCKET - len(make(iter([bodies.v1(0, "")])))
    return make(bodies.v1(number, "x" * size) for number in range(_BUCKET)), _BUCKET


def full_of_usual(make: Callable[[Iterator[dict[str, Any]]], bytes]) -> tuple[bytes, int]:
    """As many reports of usual size as 16 MiB hold, and how many these are."""
    empty, one = len(make(iter(()))), len(make(iter([bodies.v1(0)])))
    reports = (_SIZE - empty) // (one - empty + 1)
    return make(bodies.v1(number) for number in range(reports)), reports
