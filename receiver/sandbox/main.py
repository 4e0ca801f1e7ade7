"""``receiver sandbox``: the simulated providers as a process of their own."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from threading import Event
from types import FrameType
from urllib.parse import urlsplit

from environs import Env

from receiver.providers import variables
from receiver.sandbox.config import SandboxConfig
from receiver.sandbox.sandbox import Sandbox
from receiver.sandbox.traffic import Traffic

_log = logging.getLogger("receiver.sandbox")

_SECRETS = {
    "infobip_webhook_secret": "INFOBIP_WEBHOOK_SECRETS",
    "messaging_plus_webhook_secret": "MESSAGING_PLUS_WEBHOOK_SECRETS",
    "api_token": "API_TOKENS",
    "infobip_api_key": "INFOBIP_API_KEY",
    "messaging_plus_api_key": "MESSAGING_PLUS_API_KEY",
}
"""Variables and no flags: a command line is seen by every user of the machine."""


def main(argv: list[str]) -> int:
    """Run until SIGTERM or SIGINT; gives the exit status (argparse itself exits with 2 for wrong use)."""
    arguments = _parser().parse_args(argv)
    _log_to_stdout()
    stopping = Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    sandbox = Sandbox(_config(arguments)).start(arguments.port)
    _log.info("event=sandbox_started url=%s target=%s rate=%g", sandbox.url, arguments.target, arguments.rate)
    traffic = Traffic(sandbox, arguments.rate) if arguments.rate > 0 else None
    if traffic:
        traffic.start()
    stopping.wait()
    if traffic:
        traffic.stop()
    sandbox.stop()
    counts = sandbox.ledger.summary()
    _log.info("event=sandbox_stopped %s", " ".join(f"{name}={count}" for name, count in counts.items()))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="receiver sandbox",
        description="Simulated Infobip and Messaging Plus. Secrets are those of the service, from its variables: "
        f"{', '.join(_SECRETS.values())}; of a list the first.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=_number(int, 65_535), default=8001, help="0: any free one")
    add("--target", type=_address, default="http://127.0.0.1:8000", help="base URL of the receiver that is pushed to")
    add("--rate", type=_number(float, 1_000_000), default=0.0, help="messages a second, as a demonstration")
    for name in ("drop", "duplicate", "delay", "reorder", "malformed"):
        add(f"--{name}", type=_number(float, 1), default=0.0, metavar="SHARE", help="share of pushes, 0 to 1")
    add(
        "--time-scale",
        type=_number(float, 1_000_000),
        default=1.0,
        help="0.001 turns a minute into 60 ms",
    )
    add("--seed", type=int, default=0)
    return parser


def _number(kind: Callable[[str], float], most: int) -> Callable[[str], float]:
    def read(text: str) -> float:
        with suppress(ValueError):
            if 0 <= (number := kind(text)) <= most:
                return number
        raise argparse.ArgumentTypeError(f"must be a number from 0 to {most}")

    return read


def _address(text: str) -> str:
    with suppress(ValueError):  # a bracket too many
        parts = urlsplit(text)
        if parts.scheme in ("http", "https") and parts.hostname:
            return text
    raise argparse.ArgumentTypeError("must be an http or https address")


def _config(arguments: argparse.Namespace) -> SandboxConfig:
    settings = {name: value for name, value in vars(arguments).items() if name not in ("port", "rate")}
    env = Env()
    for name, variable in _SECRETS.items():
        if found := variables.words(env, variable):
            settings[name] = found[0]
    return SandboxConfig(**settings)


def _log_to_stdout() -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s level=%(levelname)s logger=%(name)s %(message)s"))
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False
