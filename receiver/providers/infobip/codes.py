"""What the provider's statuses mean in our words (https://www.infobip.com/docs/essentials/response-status-and-error-codes).

Only ids and groups are looked at: names differ in spelling between the provider's own tables, and an error that is
called permanent, or "Ok", says nothing about the message.
"""

from __future__ import annotations

from receiver.reports import Status

_PENDING, _UNDELIVERABLE, _DELIVERED, _EXPIRED, _REJECTED = 1, 2, 3, 4, 5
_GROUPS = {
    0: Status.PENDING,
    _PENDING: Status.PENDING,
    _UNDELIVERABLE: Status.UNDELIVERABLE,
    _DELIVERED: Status.DELIVERED,
    _EXPIRED: Status.EXPIRED,
    _REJECTED: Status.REJECTED,
}
_GROUP_NAMES = {
    "ACCEPTED": 0,
    "PENDING": _PENDING,
    "UNDELIVERABLE": _UNDELIVERABLE,
    "DELIVERED": _DELIVERED,
    "EXPIRED": _EXPIRED,
    "REJECTED": _REJECTED,
}
_GROUP_OF_ID: dict[int | None, int] = {
    0: 0,
    **dict.fromkeys((1, 3, 7, 26), _PENDING),
    **dict.fromkeys((4, 9, 31, 96, 97, 98), _UNDELIVERABLE),
    **dict.fromkeys((2, 5), _DELIVERED),
    **dict.fromkeys((15, 22, 29), _EXPIRED),
    # 87 is listed as expired too (there it is charged); final either way
    **dict.fromkeys((6, 8, *range(10, 15), *range(16, 22), 23, 24, 25, 51, 52, 87, 99, 100), _REJECTED),
}
DELIVERED_TO_OPERATOR = 2
REJECTED_DUPLICATE_MESSAGE_ID = 23


def verdict(group_id: int | None, group_name: str | None, status_id: int | None) -> tuple[Status, bool, bool]:
    """Give status, whether it is final, and whether it speaks of a later attempt that re-used the id.

    The group decides, by id, then by name, then by the group that a known status id belongs to. What is still unknown
    is a new member of an enum: pending, as nothing says that it is over.
    """
    group = group_id
    if group not in _GROUPS:
        group = _GROUP_NAMES.get((group_name or "").upper(), _GROUP_OF_ID.get(status_id))
    if group == _DELIVERED and status_id == DELIVERED_TO_OPERATOR:
        return Status.SENT, False, False  # in group DELIVERED, but a receipt of the handset may follow
    if group is None:
        return Status.PENDING, False, False
    status = _GROUPS[group]
    return status, status is not Status.PENDING, status_id == REJECTED_DUPLICATE_MESSAGE_ID and group == _REJECTED
