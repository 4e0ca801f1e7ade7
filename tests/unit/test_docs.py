"""The words of the project are true: traps have tests, links lead somewhere, variables are those that are read."""

from __future__ import annotations

import ast
import os
import re
import string
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from receiver import settings

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "sql/README.md"])
TRAPS = [str(number) for number in range(1, 42)]
VARIABLES = "variables"
"""Heading of the README's table."""


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every table row of a Markdown text."""
    for line in text.splitlines():
        if line.startswith("|") and not re.fullmatch(r"[|\s:-]+", line):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def section(page: Path, heading: str) -> str:
    """What stands below a heading, up to the next one of the same or a higher level."""
    found = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,2}} |\Z)", page.read_text(), re.I | re.M | re.S)
    assert found, f"{page.name} has no section {heading}"
    return found[2]


@cache
def names_of_tests(file: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)}


def traps() -> dict[str, list[str]]:
    return {cells[0]: cells for cells in rows((ROOT / "docs/traps.md").read_text()) if cells[0].isdecimal()}


def test_every_trap_has_one_row_in_order() -> None:
    numbers = [cells[0] for cells in rows((ROOT / "docs/traps.md").read_text()) if cells[0].isdecimal()]
    assert numbers == TRAPS
    assert all(len(cells) == 4 and all(cells[:3]) for cells in traps().values())


@pytest.mark.parametrize("number", TRAPS)
def test_every_trap_names_tests_that_exist(number: str) -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", traps()[number][3])
    assert named, f"trap {number} names no test"
    for file, test in named:
        assert test.startswith("test_")
        assert test in names_of_tests(ROOT / "tests" / file), f"trap {number}: no {test} in {file}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(linked), f"{page.name}: {target}"


def test_every_event_of_the_log_is_in_the_table() -> None:
    table = section(ROOT / "docs/operations.md", "Logs")
    documented = {name for cells in rows(table) for name in re.findall(r"`(\w+)`", cells[0])}
    code = "".join(file.read_text() for file in (ROOT / "receiver").rglob("*.py") if "sandbox" not in file.parts)
    logged = set(re.findall(r"\blog\.(?:info|warning|error|exception|critical)\(\s*\"(\w+)\"", code))
    assert len(logged) > 20
    assert logged <= documented


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.M)
    kept = string.ascii_lowercase + string.digits + "-_ "
    return {"".join(c for c in title.lower() if c in kept).replace(" ", "-") for title in headings}


def documented() -> dict[str, str | None]:
    """Variable and default of the README's table, None where there is no default."""
    found = {}
    for name, default, *_ in rows(section(ROOT / "README.md", VARIABLES)):
        if re.fullmatch(r"`[A-Z_]+`", name):
            assert name.strip("`") not in found
            found[name.strip("`")] = value_of(default)
    return found


def value_of(default: str) -> str | None:
    if default == f"cores, at most {settings.MOST_PROCESSES}":
        return str(min(os.cpu_count() or 1, settings.MOST_PROCESSES))
    assert default == "none" or re.fullmatch(r"`[^`]+`", default), f"{default}: as code, or none"
    return None if default == "none" else default.strip("`")


def written_with_a_default() -> dict[str, bool]:
    """Every variable whose name is written where it is read, and whether the call has a default."""
    found = {}
    for file in [ROOT / "receiver/settings.py", *ROOT.glob("receiver/providers/**/*.py")]:
        for call in ast.walk(ast.parse(file.read_text())):
            if isinstance(call, ast.Call) and (name := variable(call)):
                given = [argument for argument in call.args if not is_reader(argument)]
                found[name] = len(given) > 1
    return found


def variable(call: ast.Call) -> str | None:
    """The variable that a call reads: ``env.int("NAME", ...)`` or ``text(env, "NAME", ...)``."""
    if isinstance(call.func, ast.Attribute) and is_reader(call.func.value):
        name: ast.expr | None = call.args[0]
    else:
        name = call.args[1] if len(call.args) > 1 and is_reader(call.args[0]) else None
    return name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else None


def is_reader(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "env"


class Watched(dict[str, str]):
    """An environment that remembers which variables were asked for."""

    def __init__(self, variables: dict[str, str]) -> None:
        super().__init__(variables)
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        return super().__getitem__(name)


def loaded(variables: dict[str, str]) -> tuple[dict[str, Any], set[str]]:
    """The settings of a process that is started with these variables, and the names that it asked for."""
    environment = Watched({"DATABASE_URL": "postgresql://host/database", **variables})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "environ", environment)
        found = vars(settings.load())
    return {**found, "providers": [vars(provider) for provider in found["providers"]]}, environment.asked


def test_the_readme_has_exactly_the_variables_that_are_read() -> None:
    _, asked = loaded({})
    assert documented().keys() == asked


def test_the_readme_has_the_defaults() -> None:
    """With every default written out, a process is started with the same settings as with none of them."""
    defaults = {name: default for name, default in documented().items() if default is not None}
    assert loaded(defaults)[0] == loaded({})[0]


def test_the_readme_leaves_out_no_default() -> None:
    read = written_with_a_default()
    assert {name: read[name] for name in documented() if name in read} == {
        name: default is not None for name, default in documented().items() if name in read
    }
