"""How Infobip writes a report: one function a shape, and XML from any of them.

Shapes: v1 (``/sms/1``, Facebook, Omni), v3 (``/sms/3``, Messenger, Viber, RCS), Messages API; and those of the logs.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

from receiver.sandbox.life import ACCEPTED, INFOBIP_ERRORS, INFOBIP_STATUSES, Message, Report, Step

Fields = dict[str, Any]


def status_object(step: Step) -> Fields:
    """The ``status`` object of a step."""
    status = INFOBIP_STATUSES[step.status_id]
    return {
        "groupId": status.group_id,
        "groupName": status.group_name,
        "id": step.status_id,
        "name": status.name,
        "description": status.description,
    }


def error_object(step: Step, ok: str = "OK") -> Fields:
    """The ``error`` object of a step; group 0 is ``Ok`` in the older shapes."""
    error = INFOBIP_ERRORS[step.error_id]
    return {
        "groupId": error.group_id,
        "groupName": error.group_name if error.group_id else ok,
        "id": step.error_id,
        "name": error.name,
        "description": error.description,
        "permanent": error.permanent,
    }


def wire_time(moment: datetime, offset: timezone) -> str:
    """``2015-02-12T09:51:43.123+0100``: milliseconds, and an offset without colon."""
    local = moment.astimezone(offset)
    return f"{local:%Y-%m-%dT%H:%M:%S}.{local.microsecond // 1000:03d}{local:%z}"


def v1(report: Report) -> Fields:
    """SMS sent with /sms/1 or /sms/2."""
    message = report.message
    return {
        "bulkId": message.batch_id,
        "messageId": message.message_id,
        "to": message.destination,
        "from": message.sender,
        **_times(report),
        "smsCount": 1,
        "mccMnc": message.mcc_mnc,
        **_callback_data(message),
        "price": _price(message),
        "status": status_object(report.step),
        "error": error_object(report.step, ok="Ok"),
    }


def v3(report: Report) -> Fields:
    """SMS sent with /sms/3."""
    message = report.message
    return {
        "bulkId": message.batch_id,
        "price": _price(message),
        "status": status_object(report.step),
        "error": error_object(report.step),
        "messageId": message.message_id,
        "to": message.destination,
        "sender": message.sender,
        **_times(report),
        "messageCount": 1,
        "mccMnc": message.mcc_mnc,
        **_callback_data(message),
        "platform": {"entityId": "sandbox", "applicationId": "default"},
    }


def facebook(report: Report) -> Fields:
    """As the page of 2016 shows it: no bulkId, mccMnc and callbackData, an opaque ``to``."""
    message = report.message
    return {
        "messageId": message.message_id,
        "to": message.destination,
        **_times(report),
        "messageCount": 1,
        "price": _price(message),
        "status": status_object(report.step),
        "error": error_object(report.step),
        "channel": "FACEBOOK",
    }


def omni(report: Report) -> Fields:
    """v1 with a channel."""
    fields = v1(report)
    fields["messageCount"] = fields.pop("smsCount")
    return {**fields, "channel": _channel(report)}


def channel(report: Report) -> Fields:
    """Messenger, Viber and RCS: v3 without an operator; RCS adds a channel and a kind of traffic."""
    fields = v3(report)
    del fields["mccMnc"]
    if report.message.channel == "rcs":
        fields["price"]["trafficType"] = "BASIC"
        fields["channel"] = _channel(report)
    return fields


def messages_api(report: Report) -> Fields:
    """Messages API: an event, a channel, and ``destination`` instead of ``to``."""
    fields = v3(report)
    fields["destination"] = fields.pop("to")
    return {"event": "DELIVERY", "channel": _channel(report), **fields}


SHAPES = {"facebook": facebook, "omni": omni, "messenger": channel, "viber": channel, "rcs": channel}


def pushed(report: Report) -> Fields:
    """The shape in which the report is pushed: that of the API which sent the message."""
    message = report.message
    if message.channel == "sms":
        return v1(report) if message.version == 2 else v3(report)
    return SHAPES[message.channel](report)


def log_v1(message: Message) -> Fields:
    """A row of /sms/1/logs: the current state, without callbackData."""
    step = _current(message)
    return {
        "bulkId": message.batch_id,
        "messageId": message.message_id,
        "to": message.destination,
        "from": message.sender,
        "text": message.text,
        **_log_times(message),
        "smsCount": 1,
        "mccMnc": message.mcc_mnc,
        "price": _price(message),
        "status": status_object(step),
        "error": error_object(step, ok="Ok"),
    }


def log_v3(message: Message) -> Fields:
    """A row of /sms/3/logs."""
    fields = log_v1(message)
    fields["sender"] = fields.pop("from")
    fields["destination"] = fields.pop("to")
    fields["content"] = {"text": fields.pop("text")}
    fields["messageCount"] = fields.pop("smsCount")
    fields["error"] = error_object(_current(message))
    return {**fields, "platform": {"entityId": "sandbox", "applicationId": "default"}}


def log_omni(message: Message) -> Fields:
    """A row of /omni/1/logs: with a channel, without an error object."""
    fields = log_v1(message)
    del fields["error"]
    fields["messageCount"] = fields.pop("smsCount")
    last = message.current
    return {**fields, "channel": _channel(last) if last else message.channel.upper()}


def xml(root: str, entries: Iterable[Any], item: str = "result", head: Fields | None = None) -> str:
    """``<root><results><item>…`` as Infobip writes it: elements named as the JSON keys, all values as text."""
    inner = "".join(_element(item, entry) for entry in entries)
    extra = "".join(_element(name, value) for name, value in (head or {}).items())
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{root}><results>{inner}</results>{extra}</{root}>'


def element(name: str, value: Any) -> str:
    """Any JSON value as an XML document."""
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{_element(name, value)}'


def _element(name: str, value: Any) -> str:
    if value is None:
        return f"<{name}/>"
    if isinstance(value, dict):
        return f"<{name}>{''.join(_element(key, inner) for key, inner in value.items())}</{name}>"
    if isinstance(value, list):
        return "".join(_element(name, inner) for inner in value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"<{name}>{html.escape(text, quote=False)}</{name}>"


def _current(message: Message) -> Step:
    return message.current.step if message.current else ACCEPTED


def _times(report: Report) -> Fields:
    message = report.message
    done_at = report.done_at or message.sent_at
    return {"sentAt": wire_time(message.sent_at, message.offset), "doneAt": wire_time(done_at, message.offset)}


def _log_times(message: Message) -> Fields:
    if message.current:
        return _times(message.current)
    return {"sentAt": wire_time(message.sent_at, message.offset)}


def _price(message: Message) -> Fields:
    return {"pricePerMessage": message.price, "currency": "EUR"}


def _callback_data(message: Message) -> Fields:
    return {} if message.callback_data is None else {"callbackData": message.callback_data}


def _channel(report: Report) -> str:
    name = report.step.channel or ("viber" if report.message.channel == "omni" else report.message.channel)
    return name.upper()
