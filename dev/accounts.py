"""Who runs Postgres, and the directory that is theirs alone."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TypedDict


class PostgresError(Exception):
    """There is no server to be had; the text says why, and what to do about it."""


class Account(TypedDict, total=False):
    """Arguments of ``subprocess`` that run a program as another account; none: as ourselves."""

    user: int
    group: int
    extra_groups: list[int]


def account_for(home: Path) -> Account:
    """Who runs the server: ourselves, but root (Postgres refuses) runs it as the home's owner or a system account."""
    if os.geteuid() != 0:
        return {}
    if home.exists() and (owner := home.stat()).st_uid != 0:
        return {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise PostgresError("Postgres does not run as root, and there is no account postgres or nobody to run it as")


def make_home(home: Path) -> None:
    """Make the server's home, a directory of mode 0700, or a link to one where the account does not reach ``home``."""
    try:
        if home.is_symlink() and not home.exists():
            home.unlink()  # what it led to was cleaned away
        if not home.exists():
            home.parent.mkdir(parents=True, exist_ok=True)
            make_private(home, account_for(home))
            if not _may_write(home):
                home.rmdir()
                private = Path(tempfile.mkdtemp(prefix="receiver-postgres-", dir="/var/tmp"))
                make_private(private, account_for(private))
                home.symlink_to(private)
        usable = _may_write(home)
    except PermissionError:
        usable = False
    if not usable:
        raise PostgresError(
            f"{home} belongs to another user, or is out of reach of the account that runs the server: "
            "remove it (its data goes with it), or set DATABASE_URL"
        )


def make_private(directory: Path, account: Account) -> None:
    """Make it a directory that only the server's account (and root) gets into."""
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.is_symlink() or directory.stat().st_uid not in (os.geteuid(), account.get("user")):
        raise PostgresError(f"{directory} belongs to another user")
    directory.chmod(0o700)
    if account:
        os.chown(directory, account["user"], account["group"])


def _may_write(directory: Path) -> bool:
    account = account_for(directory)
    return subprocess.run(["test", "-w", directory.resolve()], cwd="/", check=False, **account).returncode == 0
