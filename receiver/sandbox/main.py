"""``receiver sandbox``: the simulated providers as a process of their own."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from threading import Event
from types import FrameType

from receiver.sandbox.config import SandboxConfig
from receiver.sandbox.sandbox import Sandbox
from receiver.sandbox.traffic import Traffic

_log = logging.getLogger("receiver.sandbox")


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
    parser = argparse.ArgumentParser(prog="receiver sandbox", description="Simulated Infobip and Messaging Plus.")
    add = parser.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=8001)
    add("--target", default="http://127.0.0.1:8000", help="base URL of the receiver that is pushed to")
    add("--infobip-webhook-secret", default="", help="last part of the path of its webhook")
    add("--messaging-plus-webhook-secret", default="", help="last part of the path of its webhook")
    add("--api-token", default="", help="bearer token to forward send answers with")
    add("--infobip-api-key", default=SandboxConfig.infobip_api_key)
    add("--messaging-plus-api-key", default=SandboxConfig.messaging_plus_api_key)
    add("--rate", type=float, default=0.0, help="messages a second that are sent as a demonstration")
    for name in ("drop", "duplicate", "delay", "reorder", "malformed"):
        add(f"--{name}", type=_share, default=0.0, metavar="SHARE", help="share of pushes, 0 to 1")
    add("--time-scale", type=float, default=1.0, help="0.001 turns the first retry's minute into 60 ms")
    add("--seed", type=int, default=0)
    return parser


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError("must be between 0 and 1")
    return share


def _config(arguments: argparse.Namespace) -> SandboxConfig:
    settings = {name: value for name, value in vars(arguments).items() if name not in ("port", "rate")}
    return SandboxConfig(**settings)


def _log_to_stdout() -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s level=%(levelname)s logger=%(name)s %(message)s"))
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False
