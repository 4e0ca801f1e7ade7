"""``receiver sandbox``: the simulated providers as a process of their own."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable
from contextlib import suppress
from threading import Event
from types import FrameType
from urllib.parse import urlsplit

import structlog
from environs import Env

from receiver import logs
from receiver.providers import variables
from receiver.sandbox.config import SandboxConfig
from receiver.sandbox.sandbox import Sandbox
from receiver.sandbox.traffic import Traffic

log = structlog.get_logger(__name__)

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
    config = _config(arguments)
    logs.configure(getattr(config, name) for name in _SECRETS)
    stopping = Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    sandbox = Sandbox(config).start(arguments.port)
    log.info("sandbox_started", url=sandbox.url, target=arguments.target, rate=arguments.rate)
    traffic = Traffic(sandbox, arguments.rate) if arguments.rate > 0 else None
    if traffic:
        traffic.start()
    stopping.wait()
    if traffic:
        traffic.stop()
    sandbox.stop()
    log.info("sandbox_stopped", **sandbox.ledger.summary())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="receiver sandbox",
        description="Simulated Infobip and Messaging Plus. Secrets are those of the service, from its variables: "
        f"{', '.join(_SECRETS.values())}; of a list the first.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on")
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
    add("--seed", type=int, default=0, help="of all that is random")
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
