"""The description of our own API, ``GET /openapi.json``, made from schemas of what we answer."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flask import Blueprint, Response
from marshmallow import Schema, fields
from marshmallow.validate import OneOf

import receiver
from receiver.reports import Source, Status
from receiver.web.service import Service

_STATUS = OneOf([status.value for status in Status])
_SOURCE = OneOf([source.value for source in Source])


def _text(description: str = "") -> fields.Field[Any]:
    return fields.String(required=True, allow_none=True, metadata={"description": description} if description else {})


class _Described(Schema):
    """What the current status and one report of its history have in common."""

    batch_id = _text("the provider's id of the bulk or batch")
    callback_data = _text("what the sending application attached")
    channel = _text("sms, facebook, …")
    currency = _text()
    done_at = fields.DateTime(required=True, allow_none=True, metadata={"description": "the provider's time"})
    error_code = _text()
    error_name = _text()
    error_permanent = fields.Boolean(required=True, allow_none=True)
    is_final = fields.Boolean(required=True, metadata={"description": "the provider will not change it any more"})
    mcc_mnc = _text("mobile country and network code")
    price = fields.Float(required=True, allow_none=True)
    segments = fields.Integer(required=True, allow_none=True)
    sender = _text()
    sent_at = fields.DateTime(required=True, allow_none=True, metadata={"description": "the provider's time"})
    source = fields.String(required=True, validate=_SOURCE, metadata={"description": "how it came to us"})
    status = fields.String(required=True, validate=_STATUS)
    status_code = _text("the provider's own")
    status_description = _text("the provider's own")
    status_name = _text("the provider's own")


class ReportSchema(_Described):
    """One report of the history."""

    of_reused_id = fields.Boolean(required=True)
    payload_id = fields.Integer(required=True, allow_none=True)
    received_at = fields.DateTime(required=True)
    times_assumed_utc = fields.Boolean(required=True)


class DestinationSchema(_Described):
    """The current status of a message at one destination."""

    decided_at = fields.DateTime(required=True, metadata={"description": "when we first had the verdict that stands"})
    destination = fields.String(required=True)
    first_seen_at = fields.DateTime(required=True)
    has_conflict = fields.Boolean(required=True, metadata={"description": "two different final verdicts were seen"})
    history = fields.List(fields.Nested(ReportSchema), required=True)
    message_id = fields.String(required=True)
    provider = fields.String(required=True)
    report_count = fields.Integer(required=True)
    updated_at = fields.DateTime(required=True)


class MessageSchema(Schema):
    """A message at its destinations, the first 1,000."""

    has_more = fields.Boolean(required=True, metadata={"description": "it has more destinations than are told"})
    message_id = fields.String(required=True)
    messages = fields.List(fields.Nested(DestinationSchema), required=True)
    provider = fields.String(required=True)


class CountsSchema(Schema):
    """What became of a body. Everything counted is committed."""

    received = fields.Integer(required=True)
    changed = fields.Integer(required=True)
    duplicates = fields.Integer(required=True)
    quarantined = fields.Integer(required=True)
    ignored = fields.Integer(required=True)


class HealthSchema(Schema):
    """That we live, or are ready."""

    status = fields.String(required=True)


class ProblemSchema(Schema):
    """RFC 9457."""

    type = fields.String(required=True)
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True)


_PROBLEMS = {
    "400": "The body cannot be read; it is kept.",
    "401": "No or wrong credentials, or no or a wrong signature.",
    "403": "Webhooks may not be called from this address.",
    "404": "No such provider or message, or the route is off.",
    "408": "The body came too slowly.",
    "413": "The body is too large.",
    "429": "Too many wrong credentials from this address.",
    "503": "The database cannot commit or answer now: again later, see Retry-After.",
}
_BODY = {
    "requestBody": {
        "required": True,
        "description": "As the provider writes it; gzip and deflate are understood.",
        "content": {kind: {"schema": {"type": "object"}} for kind in ("application/json", "application/xml")},
    }
}


def description(slugs: list[str]) -> dict[str, Any]:
    """Give the OpenAPI document for the providers with these names in URLs."""
    spec = APISpec(
        "receiver",
        receiver.__version__,
        "3.0.3",
        info={"description": "Delivery reports, one correct row for each message."},
        plugins=[MarshmallowPlugin(schema_name_resolver=_name)],
    )
    spec.components.security_scheme("secret", {"type": "http", "scheme": "basic"})
    spec.components.security_scheme("token", {"type": "http", "scheme": "bearer"})
    provider = _parameter("provider", {"type": "string", "enum": slugs})
    secret = _parameter("secret", {"type": "string", "minLength": 1})
    message_id = _parameter("message_id", {"type": "string", "minLength": 1})
    webhook = _operation("A provider's callback", CountsSchema, "400 401 403 404 408 413 429 503") | _BODY
    sent = _operation("The provider's answer to a send request", CountsSchema, "400 401 404 408 413 429 503") | _BODY
    message = _operation("Current status and history of a message", MessageSchema, "401 404 429 503")
    by_token: dict[str, Any] = {"security": [{"token": []}]}
    paths = {
        "/webhooks/{provider}": {"post": {**webhook, "security": [{"secret": []}], "parameters": [provider]}},
        "/webhooks/{provider}/{secret}": {"post": {**webhook, "parameters": [provider, secret]}},
        "/sent/{provider}": {"post": {**sent, **by_token, "parameters": [provider]}},
        "/messages/{provider}/{message_id}": {"get": {**message, **by_token, "parameters": [provider, message_id]}},
        "/healthz": {"get": _operation("The process lives", HealthSchema, "")},
        "/readyz": {"get": _operation("The database answers and is migrated", HealthSchema, "503")},
    }
    for path, operations in paths.items():
        spec.path(path, operations=copy.deepcopy(operations))  # apispec writes into what it is given
    return spec.to_dict()


def _name(schema: type[Schema] | Schema) -> str:
    kind = schema if isinstance(schema, type) else type(schema)
    return kind.__name__.removesuffix("Schema")


def _parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _operation(summary: str, answer: type[Schema], problems: str) -> dict[str, Any]:
    responses = {"200": {"description": "OK", "content": {"application/json": {"schema": answer}}}}
    for status in problems.split():
        content = {"application/problem+json": {"schema": ProblemSchema}}
        responses[status] = {"description": _PROBLEMS[status], "content": content}
    return {"summary": summary, "responses": responses}


def routes(service: Service) -> Blueprint:
    """The route of the description."""
    blueprint = Blueprint("openapi", __name__)

    @cache
    def document() -> str:
        return json.dumps(description([provider.slug for provider in service.settings.providers]))

    @blueprint.get("/openapi.json")
    def openapi() -> Response:
        """Open to all: it says nothing that the documentation does not."""
        return Response(document(), mimetype="application/json")

    return blueprint
