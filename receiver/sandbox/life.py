"""What can become of a message: the scripted lives, and the codes that the providers tell them with.

The verdicts stand here in our words, written down by hand from the ranking rule and the providers' tables; the readers
in ``receiver.providers`` are not asked, so that the sandbox can be a witness against them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import NamedTuple


class InfobipStatus(NamedTuple):
    group_id: int
    group_name: str
    name: str
    description: str
    verdict: str
    is_final: bool


class InfobipError(NamedTuple):
    group_id: int
    group_name: str
    name: str
    description: str
    permanent: bool


INFOBIP_STATUSES = {
    2: InfobipStatus(3, "DELIVERED", "DELIVERED_TO_OPERATOR", "Message delivered to operator", "sent", False),
    5: InfobipStatus(3, "DELIVERED", "DELIVERED_TO_HANDSET", "Message delivered to handset", "delivered", True),
    6: InfobipStatus(5, "REJECTED", "REJECTED_NETWORK", "Network is forbidden", "rejected", True),
    7: InfobipStatus(1, "PENDING", "PENDING_ENROUTE", "Message sent to next instance", "pending", False),
    9: InfobipStatus(
        2, "UNDELIVERABLE", "UNDELIVERABLE_NOT_DELIVERED", "Message sent not delivered", "undeliverable", True
    ),
    15: InfobipStatus(4, "EXPIRED", "EXPIRED_EXPIRED", "Message expired", "expired", True),
    23: InfobipStatus(
        5, "REJECTED", "REJECTED_DUPLICATE_MESSAGE_ID", "Rejected duplicate message id", "rejected", True
    ),
    26: InfobipStatus(1, "PENDING", "PENDING_ACCEPTED", "Message accepted, pending for delivery", "pending", False),
}
DUPLICATE_MESSAGE_ID = 23

INFOBIP_ERRORS = {
    0: InfobipError(0, "OK", "NO_ERROR", "No Error", False),
    1: InfobipError(1, "HANDSET_ERRORS", "EC_UNKNOWN_SUBSCRIBER", "Unknown Subscriber", True),
    27: InfobipError(1, "HANDSET_ERRORS", "EC_ABSENT_SUBSCRIBER", "Absent Subscriber", False),
    601: InfobipError(2, "USER_ERRORS", "EC_ACC_NOT_2_WAY", "Account not enabled for two-way", True),
    7002: InfobipError(2, "USER_ERRORS", "EC_CHANNEL_NOT_AVAILABLE", "Channel not available for the user", True),
}

MESSAGING_PLUS_CODES = {
    "00": "Successful",
    "1": "Sent to SME but unable to confirm",
    "2": "Message replaced at the SMSC",
    "20": "Congestion",
    "21": "SME busy",
    "22": "No response from the SME (e.g. phone switched off)",
    "40": "Remote procedure error",
    "43": "Not obtainable",
    "46": "Validity period expired",
    "4a": "Unknown subscriber",
    "5C": "Number disconnected",
    "62": "No response from the SME, no more attempts",
    "70": "Maximum attempts reached",
}
"""As ``/dr-responses`` lists them: hexadecimal, with padding and case that are not consistent."""


class Step(NamedTuple):
    """One report in the life of a message."""

    after: float
    """Seconds after sending, in provider time."""
    verdict: str
    """The member of ``delivery_status``."""
    is_final: bool
    status_id: int = 0
    """Infobip."""
    error_id: int = 0
    """Infobip."""
    channel: str | None = None
    """Infobip: the channel it fell over to."""
    delivered: bool = False
    """Messaging Plus."""
    code: str = ""
    """Messaging Plus; as the receipt writes it."""


def _infobip(after: float, status_id: int, error_id: int = 0, channel: str | None = None) -> Step:
    status = INFOBIP_STATUSES[status_id]
    return Step(after, status.verdict, status.is_final, status_id, error_id, channel)


def _receipt(after: float, delivered: bool, code: str) -> Step:
    # TS 23.040 §9.2.3.15: with 20-3F the centre still tries, so that a failure may be followed by a success.
    is_final = delivered or not 0x20 <= int(code, 16) <= 0x3F
    return Step(after, "delivered" if delivered else "undeliverable", is_final, delivered=delivered, code=code)


ACCEPTED = _infobip(0, 26)
"""What a send request is answered with, and what a log says before there is any report."""
REUSED_ID = (_infobip(1, DUPLICATE_MESSAGE_ID),)

INFOBIP_LIVES: dict[str, tuple[Step, ...]] = {
    "delivered": (_infobip(3, 5),),
    "undeliverable": (_infobip(4, 9, 27),),
    "expired": (_infobip(60, 15, 27),),
    "rejected": (_infobip(1, 6, 601),),
    "delivered_via_operator": (_infobip(2, 2), _infobip(10, 5)),
    "delivered_via_enroute": (_infobip(1, 7), _infobip(4, 5)),
    "failover": (_infobip(2, 7, 7002), _infobip(5, 5, channel="sms")),
    "conflict": (_infobip(4, 9, 1), _infobip(90, 5)),
    "sent": (_infobip(2, 2),),
    "pending": (_infobip(2, 7),),
    "silent": (),
}

MESSAGING_PLUS_LIVES: dict[str, tuple[Step, ...]] = {
    "delivered": (_receipt(3, True, "00"),),
    "late": (_receipt(5, False, "22"), _receipt(60, True, "00")),
    "slow": (_receipt(120, True, "00"),),
    "failed": (_receipt(4, False, "43"),),
    "unknown_subscriber": (_receipt(4, False, "4A"),),
    "given_up": (_receipt(30, False, "62"),),
    "trying": (_receipt(5, False, "22"),),
    "pending": (),
}


@dataclass(slots=True, eq=False)
class Message:
    """One message to one destination, as its provider knows it."""

    provider: str
    message_id: str
    batch_id: str
    destination: str
    """As the column ``destination`` has it: digits without ``+``, or the opaque id."""
    channel: str
    """Whose store its reports wait in."""
    version: int
    """2 or 3: the generation of the API that it was sent with (Infobip)."""
    sent_at: datetime
    offset: timezone
    """In which its times are written."""
    sender: str = "Sandbox"
    text: str = "Hello"
    callback_data: str | None = None
    mcc_mnc: str = "22801"
    price: float = 0.0075
    push_url: str | None = None
    push_xml: bool = False
    current: Report | None = None
    """The latest verdict; None before the first."""


@dataclass(slots=True, eq=False)
class Report:
    """One delivery report (Infobip) or receipt (Messaging Plus) that has come to be."""

    number: int
    """From 0, in the order in which reports came to be."""
    message: Message
    step: Step
    done_at: datetime | None
    """None for Messaging Plus, which gives no times."""
    acknowledged: bool = False
    """A push of it was answered with 2xx."""

    @property
    def of_reused_id(self) -> bool:
        """It speaks of a second attempt with the same id."""
        return self.step.status_id == DUPLICATE_MESSAGE_ID
