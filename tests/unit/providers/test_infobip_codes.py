"""Which of our statuses a status of Infobip is."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from receiver.providers.infobip.codes import verdict
from receiver.reports import Status

CODES = Path(__file__).parents[3] / "sql" / "codes" / "infobip_status_code.csv"


def rows() -> list[dict[str, str]]:
    with CODES.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row['id']}-{row['group_id']}")
def test_every_known_status_agrees_with_the_code_table(row: dict[str, str]) -> None:
    group_id, status_id = int(row["group_id"]), int(row["id"])
    status, is_final, _ = verdict(group_id, row["group_name"], status_id)
    assert is_final == (row["final"] == "true")
    expected = {"ACCEPTED": "pending"}.get(row["group_name"], row["group_name"].lower())
    assert status == ("sent" if status_id == 2 else expected)
    if status_id != 87:  # in two groups
        assert verdict(None, None, status_id)[:2] == (status, is_final)


@pytest.mark.parametrize(
    ("group_id", "group_name", "status_id", "expected"),
    [
        (3, "DELIVERED", 2, (Status.SENT, False, False)),
        (None, "delivered", 2, (Status.SENT, False, False)),
        (None, None, 2, (Status.SENT, False, False)),
        (5, "REJECTED", 23, (Status.REJECTED, True, True)),
        (None, None, 23, (Status.REJECTED, True, True)),
        (4, "whatever", 9999, (Status.EXPIRED, True, False)),
        (7, "PENDING", 3, (Status.PENDING, False, False)),
        (99, "Undeliverable", 9999, (Status.UNDELIVERABLE, True, False)),
        (99, "NEW_GROUP", 15, (Status.EXPIRED, True, False)),
        (99, "NEW_GROUP", 9999, (Status.PENDING, False, False)),
        (None, None, None, (Status.PENDING, False, False)),
        (-1, "", -5, (Status.PENDING, False, False)),
    ],
)
def test_group_id_then_group_name_then_status_id(
    group_id: int | None, group_name: str | None, status_id: int | None, expected: tuple[Status, bool, bool]
) -> None:
    assert verdict(group_id, group_name, status_id) == expected
