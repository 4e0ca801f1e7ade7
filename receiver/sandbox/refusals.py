"""The providers' error answers: Infobip's two JSON styles with their XML, and a plain one for Messaging Plus."""

from __future__ import annotations

import json
from http import HTTPStatus

from flask import Request, Response

from receiver.sandbox.shapes import Fields, element

_INFOBIP_CODES = {400: "BAD_REQUEST", 429: "TOO_MANY_REQUESTS", 500: "GENERAL_ERROR"}
_MESSAGING_PLUS_PATHS = ("/batch", "/message", "/dr-responses")
_NEWER_STYLE = ("/sms/3/logs",)


class Refused(Exception):
    """A request that the provider answers with an error."""

    def __init__(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers or {}


def wants_xml(request: Request) -> bool:
    """Whether the Accept header prefers XML to JSON."""
    best = request.accept_mimetypes.best_match(["application/json", "application/xml", "text/xml"])
    return best in ("application/xml", "text/xml")


def error_response(request: Request, status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    """The error in the style of the API that was asked, XML where the request prefers it."""
    if request.path.startswith(_MESSAGING_PLUS_PATHS):
        return Response(json.dumps({"error": text}), status, headers, content_type="application/json")
    root, body = _newer(status, text) if request.path.startswith(_NEWER_STYLE) else _older(status, text)
    if wants_xml(request):
        return Response(element(root, body), status, headers, content_type="application/xml;charset=UTF-8")
    return Response(json.dumps(body), status, headers, content_type="application/json;charset=UTF-8")


def _older(status: int, text: str) -> tuple[str, Fields]:
    code = _INFOBIP_CODES.get(status) or HTTPStatus(status).name
    exception: Fields = {"messageId": code, "text": text}
    if status == 400:
        exception["validationErrors"] = {"request": [text]}
    return "ApiException", {"requestError": {"serviceException": exception}}


def _newer(status: int, text: str) -> tuple[str, Fields]:
    return "ApiError", {
        "errorCode": f"E{status}",
        "description": text,
        "action": "Check the request and try again.",
        "violations": [],
        "resources": [{"name": "API documentation", "url": "https://www.infobip.com/docs/api"}],
    }
