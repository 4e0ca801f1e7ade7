"""The guide for analysts is true: its dictionary is that of the database, and its queries run."""

from __future__ import annotations

import re

import psycopg
import pytest

from dev.dictionary import BEGIN, END, PAGE, dictionary

GUIDE = PAGE.read_text()
QUERIES = re.findall(r"```sql\n(select.*?)```", GUIDE.split(BEGIN)[0], re.S)
VIEWS = [
    *("open_gaps", "delivery_daily", "delivery_latency_daily", "failure_reasons", "network_performance", "cost_daily"),
    *("report_sources", "status_conflicts", "batch_progress", "reconciler_runs"),
]


def test_the_dictionary_is_current(database_url: str) -> None:
    _, _, rest = GUIDE.partition(BEGIN)
    written, _, _ = rest.partition(END)
    assert written.strip() == dictionary(database_url).strip(), "run python -m dev.dictionary"


def test_there_are_twelve_questions() -> None:
    assert len(QUERIES) >= 12


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_of_the_guide_runs(database_url: str, query: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(query)


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_is_asked_by_a_question(view: str) -> None:
    assert any(view in query for query in QUERIES)
