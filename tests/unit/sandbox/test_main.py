"""The command, as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from receiver.sandbox import main
from tests.unit.sandbox.conftest import Target, wait_for

ROOT = Path(__file__).parents[3]
CODE = "import sys; from receiver.sandbox import main; sys.exit(main(sys.argv[1:]))"


@contextmanager
def running(*arguments: str, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command on a free port; gives the process and its URL."""
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, "--port", "0", *arguments],
        cwd=ROOT,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        started = process.stdout.readline()
        yield process, json.loads(started)["url"]
    finally:
        process.kill()
        process.communicate()


def test_it_plays_the_sending_application_too(target: Target) -> None:
    secrets = {"INFOBIP_WEBHOOK_SECRETS": "one,old", "MESSAGING_PLUS_WEBHOOK_SECRETS": "two", "API_TOKENS": "three"}
    wanted = {
        "/webhooks/infobip/one",
        "/webhooks/messaging-plus/two",
        "/sent/infobip",
        "/sent/messaging-plus",
    }
    with running("--target", target.url, "--rate", "100", "--time-scale", "0.001", **secrets):
        wait_for(lambda: {request.path for request in target.received} >= wanted)
        wait_for(lambda: any(b'"identifier"' in request.body for request in target.received))
    [batch, *_] = [request.json for request in target.received if b'"identifier"' in request.body]
    assert batch.keys() == {"identifier", "destinations"}
    forwarded = [request for request in target.received if request.path.startswith("/sent/")]
    assert {request.authorization for request in forwarded} == {"Bearer three"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_within_two_seconds_although_nobody_listens(number: signal.Signals) -> None:
    with running("--target", "http://127.0.0.1:9", "--rate", "50", "--time-scale", "0.001") as (process, url):

        def refused() -> bool:
            return int(requests.get(f"{url}/sandbox/ledger", timeout=5).json().get("push_refusals", 0)) > 0

        wait_for(refused)
        process.send_signal(number)
        assert process.wait(timeout=2) == 0
        assert process.stdout
        assert json.loads(process.stdout.readlines()[-1])["event"] == "sandbox_stopped"


@pytest.mark.parametrize("arguments", [["--drop", "2"], ["--drop", "many"], ["--what"]])
def test_wrong_use_is_exit_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: receiver sandbox" in capsys.readouterr().err
