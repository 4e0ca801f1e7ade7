"""The data dictionary of ``sql/README.md``, from the comments in the database: ``python -m dev.dictionary``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import psycopg

from dev.postgres import Server
from receiver.migrate import migrate

PAGE = Path(__file__).parents[1] / "sql/README.md"
BEGIN, END = "<!-- dictionary: made by `python -m dev.dictionary` -->\n", "<!-- end of dictionary -->\n"
_RELATIONS = """
select c.relname, case c.relkind when 'v' then 'view' else 'table' end, obj_description(c.oid, 'pg_class'),
       array_agg(array[a.attname::text, format_type(a.atttypid, a.atttypmod), col_description(c.oid, a.attnum)]
                 order by a.attnum)
from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v') and not c.relispartition
group by c.oid
order by c.relname <> 'message_status', c.relkind <> 'v', c.relname
"""


def dictionary(url: str) -> str:
    """All tables and views of a migrated database with their columns, as Markdown: messages first, then the views."""
    with psycopg.connect(url) as connection:
        relations = connection.execute(_RELATIONS).fetchall()
    parts = []
    for name, kind, comment, columns in relations:
        parts.append(f"### {name}\n\n{kind.capitalize()}. {comment}\n\n| column | type | meaning |\n|---|---|---|\n")
        parts += [f"| `{column}` | {_type(of)} | {meaning} |\n" for column, of, meaning in columns]
        parts.append("\n")
    return "".join(parts)


def put(page: str, text: str) -> str:
    """The page with another dictionary between the marks."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{text}{END}{after}"


def _type(name: str) -> str:
    return name.replace("timestamp with time zone", "timestamptz")


def main() -> None:
    """Write the page again."""
    with tempfile.TemporaryDirectory(prefix="receiver-dictionary-") as directory:
        Path(directory).chmod(0o711)  # root's server runs as another account
        with Server(Path(directory) / "postgres") as server:
            url = server.create_database("receiver")
            migrate(url)
            text = dictionary(url)
        server.destroy()
    PAGE.write_text(put(PAGE.read_text(), text))


if __name__ == "__main__":
    main()
