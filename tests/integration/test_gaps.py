"""Silence is visible: every message that is overdue, since when, what was tried, what happens next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from receiver.sandbox import Sandbox, SandboxConfig
from tests.integration.conftest import OTHER_SECRET, SECRET, TOKEN
from tests.integration.server import Web, count, execute, select, statuses

Cycle = Callable[..., bool]
BEARER = {"Authorization": f"Bearer {TOKEN}"}
OVERDUE = {"OVERDUE_AFTER_SECONDS": "0.001"}
SENT = {"bulkId": "b", "messages": [{"to": "41790000001", "messageId": "m-1", "status": {"groupId": 1, "id": 26}}]}


def gaps(url: str, columns: str) -> list[Any]:
    return select(url, f"select {columns} from open_gaps order by 1")  # noqa: S608 - the test's own words


def test_a_dropped_push_is_a_gap_until_the_reconciler_closes_it(
    web: Web, variables: dict[str, str], cycle: Cycle, database_url: str
) -> None:
    config = {"infobip_webhook_secret": SECRET, "messaging_plus_webhook_secret": OTHER_SECRET, "api_token": TOKEN}
    settings = SandboxConfig(target=web.url, drop=1.0, time_scale=0.00001, **config)  # type: ignore[arg-type]
    with Sandbox(settings) as sandbox:
        here = {"INFOBIP_BASE_URL": sandbox.url, "MESSAGING_PLUS_BASE_URL": sandbox.url, **OVERDUE}
        sent = sandbox.send_infobip(2, "delivered")
        chat = sandbox.send_infobip(1, "undeliverable", channel="facebook")
        batch = sandbox.send_messaging_plus(["+447700900001", "+447700900002"], ["delivered", "failed"])
        assert sandbox.drain()
        assert [sandbox.forward("infobip", answer) for answer in (sent, chat)] == [200, 200]
        assert sandbox.forward("messaging_plus", {**batch, "destinations": ["447700900001", "447700900002"]}) == 200
        assert cycle(**{**here, "INFOBIP_API_KEY": "", "MESSAGING_PLUS_API_KEY": ""})
        assert gaps(database_url, "provider, message_id is null, status") == [
            *[("infobip", False, "pending")] * 3,
            *[("messaging_plus", True, None)] * 2,
        ]
        assert cycle(
            **here,
            INFOBIP_API_KEY=sandbox.config.infobip_api_key,
            MESSAGING_PLUS_API_KEY=sandbox.config.messaging_plus_api_key,
        )
        assert gaps(database_url, "provider") == []
        found = "select status::text, source, count(*) from message_status group by 1, 2 order by 1, 2"
        assert sorted(select(database_url, found)) == [
            ("delivered", "pull", 3),
            ("undeliverable", "pull", 2),
        ]


def test_a_message_is_no_gap_before_it_is_overdue_or_once_it_is_final(
    web: Web, cycle: Cycle, database_url: str
) -> None:
    web.post("/sent/infobip", SENT, headers=BEARER)
    assert cycle(OVERDUE_AFTER_SECONDS="600")
    assert gaps(database_url, "message_id") == []
    assert cycle(**OVERDUE)
    assert gaps(database_url, "message_id") == ["m-1"]
    delivered = {"messageId": "m-1", "to": "41790000001", "status": {"groupId": 3, "id": 5}}
    web.post(f"/webhooks/infobip/{SECRET}", {"results": [delivered]})
    assert gaps(database_url, "message_id") == []


def test_with_the_operator_is_still_a_gap(web: Web, cycle: Cycle, database_url: str) -> None:
    operator = {"messageId": "m-1", "to": "41790000001", "status": {"groupId": 3, "id": 2}}
    web.post(f"/webhooks/infobip/{SECRET}", {"results": [operator]})
    assert cycle(**OVERDUE)
    assert gaps(database_url, "message_id, status, status_code, report_count") == [("m-1", "sent", "2", 1)]


def test_a_gap_says_since_when_and_what_was_tried_and_what_is_next(
    web: Web, sandbox: Sandbox, cycle: Cycle, database_url: str
) -> None:
    tried = "pulls, last_outcome, last_error, next_step, next_pull_at > now()"
    web.post("/sent/infobip", SENT, headers=BEARER)
    assert cycle(**OVERDUE, INFOBIP_BASE_URL="")
    since = "overdue_since = first_seen_at + interval '1 millisecond', first_seen_at <= now()"
    assert gaps(database_url, since) == [(True, True)]
    never = "never pulled: is the reconciler running, are the provider's variables set?"
    assert gaps(database_url, tried) == [(None, None, None, never, None)]

    sandbox.fault("/sms/1/reports", "error", status=500)
    assert not cycle(**OVERDUE, INFOBIP_BASE_URL=sandbox.url, INFOBIP_CHANNELS="sms")
    [(pulls, outcome, _, step, is_planned)] = gaps(database_url, tried)
    assert (pulls >= 1, outcome, step, is_planned) == (True, "http_error", "pull is repeated after a failure", True)

    execute(database_url, "update pull_lease set not_before = '-infinity'")
    assert cycle()
    [(more, outcome, error, step, is_planned)] = gaps(database_url, tried)
    assert (more > pulls, outcome, error) == (True, "ok", None)
    assert (step, is_planned) == ("reports are pulled and logs searched again", True)


def test_a_message_of_another_channel_is_not_said_to_have_been_tried(
    web: Web, sandbox: Sandbox, cycle: Cycle, database_url: str
) -> None:
    pending = {"messageId": "m-1", "to": "x", "channel": "VIBER", "status": {"groupId": 1, "id": 7}}
    web.post(f"/webhooks/infobip/{SECRET}", {"results": [pending]})
    assert cycle(**OVERDUE, INFOBIP_CHANNELS="sms,facebook")
    assert gaps(database_url, "channel, pulls") == [("viber", None)]


@pytest.mark.parametrize(
    ("channel", "pulls", "outcome"),
    [
        ("sms", 3, "http_error"),  # two of sms, one of all channels
        ("facebook", 2, "ok"),
        ("viber", 1, "ok"),
        (None, 4, "http_error"),  # it may be of any channel
    ],
)
def test_a_gap_counts_the_pulls_that_could_have_brought_its_report(
    database_url: str, channel: str | None, pulls: int, outcome: str
) -> None:
    execute(database_url, "insert into setting values ('overdue_after', '1 minute'), ('give_up_after', '2 hours')")
    status = (
        "insert into message_status (provider, channel, message_id, destination, status, is_final, source,"
        " report_count, has_conflict, first_seen_at, decided_at, updated_at) "
        "select 'infobip', {}, 'm-' || n, 'x', 'pending', false, 'push', 1, false, t, t, t "
        "from (values (1, now() - interval '1 hour'), (2, now() - interval '5 minutes')) as m (n, t)"
    )
    execute(database_url, status.format(f"'{channel}'" if channel else "null"))
    execute(
        database_url,
        """
        insert into pull (provider, endpoint, source, channel, batch_id, params, started_at, outcome)
        select p.provider, p.endpoint, p.source::report_source, p.channel, p.batch_id, '{}',
               now() - p.minutes * interval '1 minute', p.outcome
        from (values
          ('infobip', '/sms/1/reports', 'pull', 'sms', null, 50, 'ok'),
          ('infobip', '/sms/1/reports', 'pull', 'sms', null, 10, 'http_error'),
          ('infobip', '/facebook/1/reports', 'pull', 'facebook', null, 20, 'ok'),
          ('infobip', '/messages-api/1/reports', 'pull', null, null, 40, 'ok'),
          ('infobip', '/sms/1/reports', 'pull', 'sms', null, 61, 'network_error'),  -- before we heard of it
          ('infobip', '/sms/1/logs', 'log', 'sms', null, 3, 'ok'),                  -- no report comes from these
          ('messaging_plus', '/batch', 'pull', null, 'b', 3, 'ok'),
          ('messaging_plus', '/dr-responses', 'pull', null, null, 3, 'ok')
        ) as p (provider, endpoint, source, channel, batch_id, minutes, outcome)
        """,
    )
    assert gaps(database_url, "message_id, pulls, last_outcome") == [("m-1", pulls, outcome), ("m-2", None, None)]


def test_a_message_that_nobody_answers_for_is_given_up_and_stays(web: Web, cycle: Cycle, database_url: str) -> None:
    web.post("/sent/infobip", SENT, headers=BEARER)
    web.post("/sent/messaging-plus", {"identifier": "7d76bd34-c8c9-4e4f-b831-d6316ffaf609"}, headers=BEARER)
    assert cycle(**OVERDUE)
    assert gaps(database_url, "provider, given_up") == [("infobip", False), ("messaging_plus", False)]
    execute(database_url, "update sent_batch set next_pull_at = now()")
    assert cycle(**OVERDUE, GIVE_UP_AFTER_HOURS="0.000001")
    assert gaps(database_url, "provider, given_up, next_step, next_pull_at") == [
        ("infobip", True, "given up", None),
        ("messaging_plus", True, "given up", None),
    ]
    assert select(database_url, "select next_pull_at from sent_batch") == [None]


@pytest.mark.parametrize(
    ("sent", "since", "given_up"),
    [
        (None, "first_seen_at", True),
        ("80 hours ago", "first_seen_at", True),
        ("71 hours ago", "sent_at", False),
        ("100 days", None, None),  # from now on: nothing is overdue yet
        ("200 days", "first_seen_at", True),  # nobody can send that late
        ("9000 years", "first_seen_at", True),
        ("2000 years ago", "first_seen_at", True),
    ],
)
def test_a_message_that_was_scheduled_is_overdue_and_given_up_from_when_it_was_sent(
    database_url: str, sent: str | None, since: str | None, given_up: bool | None
) -> None:
    execute(database_url, "insert into setting values ('overdue_after', '10 minutes'), ('give_up_after', '72 hours')")
    execute(
        database_url,
        "insert into message_status (provider, message_id, destination, status, is_final, source, report_count,"
        " has_conflict, sent_at, first_seen_at, decided_at, updated_at) "
        "select 'infobip', 'm', 'x', 'sent', false, 'push', 1, false, now() + %s::interval, t, t, t "
        "from (values (now() - interval '75 hours')) as m (t)",
        sent,
    )
    shown = """
        select case overdue_since - interval '10 minutes'
                 when m.first_seen_at then 'first_seen_at' when sent_at then 'sent_at' end,
               given_up
        from open_gaps join message_status m using (message_id)"""
    assert select(database_url, shown) == ([] if since is None else [(since, given_up)])


@pytest.mark.parametrize("destinations", [["441111111111", "442222222222"], [None]])
def test_a_batch_of_which_only_its_sending_is_known_is_a_gap(
    web: Web, sandbox: Sandbox, cycle: Cycle, database_url: str, destinations: list[str | None]
) -> None:
    batch = sandbox.send_messaging_plus([], [])["identifier"]
    told = [destination for destination in destinations if destination]
    web.post("/sent/messaging-plus", {"identifier": batch, "destinations": told}, headers=BEARER)
    sandbox.fault("/batch", "error", status=500)
    assert not cycle(**OVERDUE)
    columns = "destination, batch_id, message_id, status, report_count, pulls, last_outcome, next_step"
    rest = (batch, None, None, 0, 1, "http_error", "batch is pulled again")
    assert gaps(database_url, columns) == [(destination, *rest) for destination in destinations]


def test_of_a_batch_only_the_destinations_without_a_report_are_gaps(
    web: Web, sandbox: Sandbox, cycle: Cycle, database_url: str
) -> None:
    numbers = ["447700900001", "447700900002", "447700900003"]
    batch = sandbox.send_messaging_plus(numbers[:2], ["delivered", "pending"])["identifier"]
    sandbox.drain()
    web.post("/sent/messaging-plus", {"identifier": batch, "destinations": numbers}, headers=BEARER)
    assert cycle(**OVERDUE)
    assert gaps(database_url, "destination, status, next_step, next_pull_at > now()") == [
        ("447700900002", "pending", "batch is pulled again", True),
        ("447700900003", None, "batch is pulled again", True),
    ]
    assert count(database_url, "message_status") == len(statuses(database_url, "destination")) == 2


def test_a_destination_that_is_told_after_all_others_were_reported_is_a_gap(
    web: Web, sandbox: Sandbox, cycle: Cycle, database_url: str
) -> None:
    numbers = ["447700900001", "447700900002", "447700900003"]
    batch = sandbox.send_messaging_plus(numbers[:2], ["delivered", "delivered"])["identifier"]
    sandbox.drain()
    web.post("/sent/messaging-plus", {"identifier": batch, "destinations": numbers[:2]}, headers=BEARER)
    assert cycle(**OVERDUE)
    assert select(database_url, "select is_named, next_pull_at from sent_batch") == [(True, None)]
    web.post("/sent/messaging-plus", {"identifier": batch, "destinations": numbers[:1]}, headers=BEARER)
    assert select(database_url, "select is_named from sent_batch") == [True]
    web.post("/sent/messaging-plus", {"identifier": batch, "destinations": numbers}, headers=BEARER)
    assert gaps(database_url, "destination, next_step") == [(numbers[2], "batch is pulled again")]


def test_a_batch_that_a_push_made_known_is_a_gap_where_it_went_to_more(
    web: Web, cycle: Cycle, database_url: str
) -> None:
    receipt = {"destination": "+447700900001", "delivered": True, "batchuuid": "b", "messageuuid": "m"}
    web.post(f"/webhooks/messaging-plus/{OTHER_SECRET}", receipt)
    assert select(database_url, "select is_named from sent_batch") == [True]
    sent = {"identifier": "b", "destinations": ["447700900001", "447700900002"]}
    web.post("/sent/messaging-plus", sent, headers=BEARER)
    assert cycle(**OVERDUE, MESSAGING_PLUS_API_KEY="")
    assert gaps(database_url, "destination, next_step") == [("447700900002", "batch is pulled again")]
