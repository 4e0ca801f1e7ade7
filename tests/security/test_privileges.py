"""What each role may see and do, tried by logging in: analysts, those who may see numbers, the service itself."""

from __future__ import annotations

import ast
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.errors import InsufficientPrivilege

from dev.postgres import Server
from receiver import arrivals, overview, privacy, settings, store
from receiver import migrate as migrations
from receiver.database import connect
from receiver.migrate import migrate
from receiver.providers.infobip import Infobip
from receiver.reports import Source

NUMBERS = ("41793026731", "41793026732")
CALLBACK = "order of somebody"
ROOT = Path(__file__).parents[2]
HIDDEN = [
    *("message_status", "delivery_report", "open_gaps"),  # but the views of these names
    *("payload", "quarantine", "sent_batch", "pull", "message_check", "privacy_key", "erasure"),
]
Login = Callable[[str], psycopg.Connection[Any]]


def report(message: str, number: str, group: int = 3) -> dict[str, Any]:
    return {"messageId": message, "to": number, "callbackData": CALLBACK, "status": {"groupId": group}}


def fill(url: str) -> None:
    """Numbers in every table that takes one: two messages of one number, one of another, an item in quarantine, a batch
    and a pull."""
    first, second = NUMBERS
    results = [report("m-1", first), report("m-2", first, group=1), report("m-3", second), {"to": f"+{first}"}]
    body = json.dumps({"results": results}).encode()
    with connect(url) as connection:
        store.record(connection, [arrivals.read(Infobip(), Source.PUSH, body)])
        connection.execute("insert into sent_batch (batch_id, destinations) values ('b', %s)", [list(NUMBERS)])
        connection.execute("insert into setting values ('overdue_after', '0'), ('give_up_after', '1 day')")
        connection.execute("update message_status set has_conflict = true")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of our own: roles belong to a server, not to a database."""
    with tempfile.TemporaryDirectory(prefix="receiver-roles-") as directory:
        Path(directory).chmod(0o711)
        server = Server(Path(directory) / "postgres")
        server.start()
        try:
            yield server
        finally:
            server.destroy()


@pytest.fixture(scope="module")
def roleless(server: Server) -> list[str]:
    """What is said where the owner of a database may make no roles, as on many platforms."""
    said: list[str] = []
    with psycopg.connect(server.create_database("platform"), autocommit=True) as admin:
        admin.execute("create role tenant login")
        admin.execute("alter database platform owner to tenant")
    tenant = make_conninfo(server.url("platform"), user="tenant")
    migrate(tenant)
    with psycopg.connect(tenant) as connection:
        connection.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
        connection.execute("select grant_roles()")
    return said


@pytest.fixture(scope="module")
def url(server: Server, roleless: list[str]) -> str:
    """A database with numbers in it and a login for each role."""
    url = server.create_database("receiver")
    migrate(url)
    fill(url)
    with psycopg.connect(url, autocommit=True) as admin:
        for name, role in (("ana", "receiver_analyst"), ("pia", "receiver_pii"), ("web", "receiver_app")):
            admin.execute(sql.SQL("create role {} login in role {}").format(*map(sql.Identifier, (name, role))))
        admin.execute("grant receiver_analyst to pia")
        admin.execute("alter role ana set search_path = analyst, public")
        admin.execute("alter role pia set search_path = analyst, public")
    return url


@pytest.fixture
def login(url: str) -> Iterator[Login]:
    """Opens a connection as a user."""
    opened = []

    def login(user: str) -> psycopg.Connection[Any]:
        opened.append(psycopg.connect(make_conninfo(url, user=user), autocommit=True))
        return opened[-1]

    yield login
    for connection in opened:
        connection.close()


def all_of(connection: psycopg.Connection[Any], query: str, *parameters: Any) -> list[Any]:
    return connection.execute(query, parameters or None).fetchall()


def columns(connection: psycopg.Connection[Any], relation: str) -> list[tuple[str, str]]:
    found = connection.execute(f"select * from {relation} limit 0").description  # noqa: S608 - the test's own words
    return [(column.name, column.type_display) for column in found or ()]


READABLE = """
select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname in ('public', 'analyst') and c.relkind in ('r', 'p', 'v', 'm') and has_table_privilege(c.oid, 'select')
"""


# --- where no roles can be made


def test_where_roles_cannot_be_made_migrations_pass_and_say_so(roleless: list[str]) -> None:
    assert [notice for notice in roleless if "role" in notice] == [
        f"role {name} is missing: this user may not make roles"
        for name in ("receiver_app", "receiver_analyst", "receiver_pii")
    ]


def test_roles_that_an_admin_makes_later_get_their_rights_with_the_next_migrate(server: Server, url: str) -> None:
    tenant = make_conninfo(server.url("platform"), user="tenant")
    with psycopg.connect(make_conninfo(server.url("platform"), user="ana")) as analyst:
        with pytest.raises(InsufficientPrivilege):
            analyst.execute("select from analyst.message_status")
        analyst.rollback()
        assert migrate(tenant) == []  # url has made the roles, for all databases of the server
        assert all_of(analyst, "select * from message_status") == []


def test_who_logs_in_as_the_role_itself_need_set_nothing(server: Server, url: str) -> None:
    """As on platforms whose credentials are roles of their own."""
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("alter role receiver_analyst login")
    with psycopg.connect(make_conninfo(url, user="receiver_analyst")) as analyst:
        assert all_of(analyst, "select count(*) from message_status") == [(3,)]


# --- where others own the database


@pytest.fixture(scope="module")
def hosted(server: Server, url: str) -> tuple[str, str]:
    """A database of somebody else, as its tenant and as its owner reach it; everybody may make objects in ``public``,
    as in databases that were made before Postgres 15, and the tenant can neither change that nor make schemas."""
    owner = server.create_database("hosted")
    tenant = make_conninfo(owner, user="tenant")
    with psycopg.connect(owner, autocommit=True) as admin:
        admin.execute("grant all on schema public to tenant")
        admin.execute("grant create on schema public to public")
    migrate(tenant)
    fill(tenant)
    return tenant, owner


def numbers_seen(connection: psycopg.Connection[Any]) -> list[str]:
    """Which of all that may be read holds a number or callback data."""
    return [
        name
        for (name,) in all_of(connection, READABLE)
        for row in all_of(connection, f"select t::text, row_to_json(t)::text from {name} t")  # noqa: S608 - the catalog's
        if any(word in str(row) for word in (*NUMBERS, CALLBACK))
    ]


def missing(url: str) -> list[str]:
    """What ``migrate`` says is missing."""
    with psycopg.connect(url) as connection:
        return [name for (name,) in connection.execute("select grant_roles()")]


def test_where_no_schema_can_be_made_analysts_see_no_numbers(hosted: tuple[str, str]) -> None:
    tenant, owner = hosted
    assert "schema analyst" in missing(tenant)
    with psycopg.connect(make_conninfo(owner, user="ana"), autocommit=True) as analyst:
        for query in ("select destination from open_gaps", "select * from public.status_conflicts"):
            with pytest.raises(InsufficientPrivilege):
                analyst.execute(query)
        assert all_of(analyst, "select sum(messages) from delivery_daily") == [(3,)]
        assert numbers_seen(analyst) == []


def test_a_schema_that_an_admin_makes_later_is_used(hosted: tuple[str, str]) -> None:
    tenant, owner = hosted
    with psycopg.connect(owner, autocommit=True) as admin:
        admin.execute("create schema analyst authorization tenant")
    assert "schema analyst" not in missing(tenant)
    with psycopg.connect(make_conninfo(owner, user="ana"), autocommit=True) as analyst:
        assert all_of(analyst, "select count(*) from open_gaps") == [(3,)]
        assert numbers_seen(analyst) == []


@pytest.mark.parametrize(
    ("decoy", "call"),
    [
        (
            "partitions(text) returns table (name regclass, since timestamptz, until timestamptz)",
            "drop_payload('1 day')",
        ),
        (
            "partitions(text) returns table (name regclass, since timestamptz, until timestamptz)",
            "drop_history('1 day')",
        ),
        ("concat(text, text, text) returns text", "make_partitions(now() + '1 year', now() + '2 years')"),
    ],
)
def test_who_can_make_functions_gets_no_rights_of_the_owner(hosted: tuple[str, str], decoy: str, call: str) -> None:
    """A function of the same name that fits better is taken, wherever both may be looked for."""
    tenant, owner = hosted
    opened = "grant select on public.privacy_key to ana"
    with psycopg.connect(make_conninfo(owner, user="ana"), autocommit=True) as analyst:
        analyst.execute(
            f"create function public.{decoy} language plpgsql as $$ begin execute '{opened}'; return; end $$"
            if "table" in decoy
            else f"create function public.{decoy} language plpgsql as $$ begin execute '{opened}'; return 'x'; end $$"
        )
        try:
            with psycopg.connect(make_conninfo(owner, user="web")) as service, suppress(InsufficientPrivilege):
                service.execute(f"select {call}")
            with pytest.raises(InsufficientPrivilege):
                analyst.execute("select key from public.privacy_key")
        finally:
            analyst.execute(f"drop function public.{decoy.partition(' returns ')[0]}")
            with psycopg.connect(tenant) as connection:
                connection.execute("revoke all on privacy_key from ana")


def test_that_everybody_may_make_objects_is_revoked_or_reported(hosted: tuple[str, str]) -> None:
    tenant, owner = hosted
    revoke = "revoke create on schema public from public"
    may_create = "select has_schema_privilege('public', 'create')"
    with psycopg.connect(make_conninfo(owner, user="ana"), autocommit=True) as analyst:
        assert revoke in missing(tenant)
        assert all_of(analyst, may_create) == [(True,)]
        assert missing(owner) == []
        assert all_of(analyst, may_create) == [(False,)]
        assert missing(tenant) == []


# --- analysts


def test_an_analyst_gets_the_documented_columns(login: Login) -> None:
    for table in ("message_status", "delivery_report", "open_gaps", "status_conflicts", "message_history"):
        assert columns(login("ana"), table) == columns(login("postgres"), f"public.{table}")


def test_a_pseudonym_counts_and_joins_as_the_number_does(login: Login) -> None:
    analyst, owner = login("ana"), login("postgres")
    grouped = "select count(*) from {} group by destination order by 1"
    for table in ("message_status", "delivery_report"):
        assert all_of(analyst, grouped.format(table)) == all_of(owner, grouped.format(f"public.{table}"))
    joined = "select count(*) from {0}message_status m join {0}{1} using (destination)"
    for table in ("delivery_report", "open_gaps", "status_conflicts", "message_history"):
        assert all_of(analyst, joined.format("", table)) == all_of(owner, joined.format("public.", table)) != [(0,)]


def test_nothing_that_an_analyst_can_read_holds_a_number_or_callback_data(login: Login) -> None:
    analyst = login("ana")
    readable = [name for (name,) in all_of(analyst, READABLE)]
    assert {"analyst.message_status", "public.delivery_daily", "public.infobip_status_code"} <= set(readable)
    assert numbers_seen(analyst) == []


def test_a_view_that_nobody_meant_for_analysts_is_not_theirs(url: str, login: Login) -> None:
    """Whatever its column with the number is called."""
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("create view public.recipients as select destination as recipient from message_status")
        try:
            migrate(url)
            with pytest.raises(InsufficientPrivilege):
                login("ana").execute("select * from public.recipients")
        finally:
            admin.execute("drop view public.recipients")


def test_every_view_is_there_for_analysts(login: Login) -> None:
    views = all_of(login("ana"), "select viewname from pg_views where schemaname = 'public'")
    for (view,) in views:
        login("ana").execute(sql.SQL("select * from {} limit 1").format(sql.Identifier(view)))


@pytest.mark.parametrize(
    "statement",
    [
        *(f"select * from public.{table}" for table in HIDDEN),  # noqa: S608 - names from above
        "select keyed_hash('41793026731')",
        "select alias_of('41793026731')",
        "select * from forgotten_among(array['41793026731'])",
        "select * from begin_erasure('41793026731')",
        "select grant_roles()",
        "select mask_views()",
        "select record('[]', '{}', '[]', '[]', '[]')",
        "insert into message_status (provider) values ('infobip')",
        "update message_status set status = 'delivered'",
        "delete from delivery_report",
        "create table public.mine ()",
        "create table analyst.mine ()",
        "create or replace view analyst.message_status as select * from public.message_status",
    ],
)
def test_an_analyst_may_not(login: Login, statement: str) -> None:
    with pytest.raises(InsufficientPrivilege):
        login("ana").execute(statement)


def test_a_condition_of_an_analyst_sees_the_pseudonym_only(login: Login) -> None:
    """Their own functions are run where the planner likes, perhaps before anything else."""
    analyst = login("ana")
    heard: list[str] = []
    analyst.add_notice_handler(lambda notice: heard.append(notice.message_primary or ""))
    analyst.execute(
        "create function pg_temp.tell(text) returns boolean language plpgsql cost 0.0001 as "
        "$$ begin raise notice '%', $1; return true; end $$"
    )
    analyst.execute("select from message_status where pg_temp.tell(destination)")
    analyst.execute("select from message_status m where pg_temp.tell(m::text)")
    assert len(heard) == 6
    assert not [line for line in heard if any(number in line for number in NUMBERS)]


def test_what_the_planner_knows_of_numbers_is_hidden_from_analysts(login: Login) -> None:
    login("postgres").execute("analyze message_status")
    assert all_of(login("ana"), "select * from pg_stats where tablename in ('message_status', 'privacy_key')") == []


def test_a_digest_does_not_give_the_number_away_by_trying_all(login: Login) -> None:
    digests = "select digest from {}delivery_report"
    seen = {bytes(digest) for (digest,) in all_of(login("ana"), digests.format(""))}
    made = {bytes(digest) for (digest,) in all_of(login("postgres"), digests.format("public."))}
    assert len(seen) == 3
    assert not seen & made


# --- who may see numbers


def test_the_full_number_needs_a_grant_and_is_asked_for_by_name(login: Login) -> None:
    both = login("pia")
    for table in ("message_status", "delivery_report", "open_gaps"):
        seen = {number for (number,) in all_of(both, f"select destination from public.{table}")}  # noqa: S608
        assert seen & set(NUMBERS), table
    assert not {number for (number,) in all_of(both, "select destination from message_status")} & set(NUMBERS)


@pytest.mark.parametrize("table", ["payload", "quarantine", "privacy_key", "erasure"])
def test_who_may_see_numbers_may_not_see_everything(login: Login, table: str) -> None:
    with pytest.raises(InsufficientPrivilege):
        login("pia").execute(sql.SQL("select * from {}").format(sql.Identifier("public", table)))


# --- the service


def test_the_service_does_all_its_work_without_owning_anything(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_conninfo(url, user="web")
    monkeypatch.setenv("DATABASE_URL", app)
    configuration = settings.load()
    body = json.dumps({"results": [report("m-9", "41793026739")]}).encode()
    with connect(app) as connection:
        assert migrations.pending(connection) == []
        assert privacy.forget(connection, "41793026739", int) == (0, 0, 0, 0)
        [recorded] = store.record(connection, [arrivals.read(Infobip(), Source.PUSH, body)])
        assert (recorded.changed, recorded.duplicates) == (1, 0)
        store.execute(connection, "publish_setting", name="give_up_after", value=timedelta(1))
        assert store.query(connection, "make_partitions") == []
        assert connection.execute("select make_partitions(now(), now() + interval '60 days')").fetchall()
        assert "m-9" in str(store.message(connection, "infobip", "m-9"))
        assert "infobip" in overview.render(connection, configuration)
        assert (
            len(privacy.prune(connection, configuration, int)) == len(privacy.prunable(connection, configuration)) - 1
        )


@pytest.mark.parametrize(
    "statement",
    [
        "select * from privacy_key",
        "update privacy_key set key = ''",
        "delete from erasure",
        "delete from migration",
        "truncate message_status",
        "drop table payload",
        "alter table payload add x int",
        "create table public.mine ()",
        "select grant_roles()",
    ],
)
def test_the_service_may_not(login: Login, statement: str) -> None:
    with pytest.raises(InsufficientPrivilege):
        login("web").execute(statement)


# --- queries


_EXECUTES = re.compile(r"(?<!\bstore)\.(execute|executemany|copy|stream)$")
_SQL = re.compile(r"f?['\"]\W*(select|insert|update|delete|copy|set|lock|create|drop|alter|with|call) ")


def test_every_statement_is_a_constant_and_takes_its_values_as_parameters() -> None:
    """A statement is a literal, one of ``sql/queries.sql`` or a migration; only one COPY is put together, of such."""
    allowed = (ast.Constant, ast.Subscript, ast.Name)
    put_together = []
    for file in sorted((ROOT / "receiver").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and _EXECUTES.search(ast.unparse(node.func)):
                assert not node.args or isinstance(node.args[0], allowed), f"{file.name}:{node.lineno}"
            if isinstance(node, (ast.JoinedStr, ast.BinOp)) and _SQL.match(ast.unparse(node)):
                put_together.append(ast.unparse(node))
    assert put_together == ["f\"copy ({QUERIES['export']}) to stdout (format csv, header)\""]
