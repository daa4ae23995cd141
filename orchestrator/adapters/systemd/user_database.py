"""Users and groups: of this machine, or of an image that does not run."""

from __future__ import annotations

import grp
import os
import pwd

from orchestrator.core.errors import OrchError


def user_home(name: str, root: str = "/") -> str | None:
    """Return the home of a user, None when there is no such user."""
    entry = _passwd(name, root)
    return None if entry is None else entry[2]


def ids_of(name: str, root: str = "/") -> tuple[int, int]:
    """Return the uid and gid of a user.

    :raises OrchError: when there is no such user
    """
    entry = _passwd(name, root)
    if entry is None:
        raise OrchError(f"there is no user `{name}`", details=(os.path.join(root, "etc/passwd"),))

    return entry[0], entry[1]


def has_group(name: str, root: str = "/") -> bool:
    if root != "/":
        return name in _groups(root)

    try:
        grp.getgrnam(name)
    except KeyError:
        return False

    return True


def groups_of(name: str, root: str = "/") -> tuple[str, ...]:
    """Return the groups that list a user as a member; not the one of its own."""
    if root == "/":
        return tuple(sorted(entry.gr_name for entry in grp.getgrall() if name in entry.gr_mem))

    return tuple(sorted(group for group, members in _groups(root).items() if name in members))


def _passwd(name: str, root: str) -> tuple[int, int, str] | None:
    if root == "/":
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            return None

        return entry.pw_uid, entry.pw_gid, entry.pw_dir

    for fields in _rows(root, "passwd"):
        if fields[0] == name and len(fields) >= 6:
            return int(fields[2]), int(fields[3]), fields[5]

    return None


def _groups(root: str) -> dict[str, tuple[str, ...]]:
    rows = (fields for fields in _rows(root, "group") if len(fields) >= 4)
    return {fields[0]: tuple(filter(None, fields[3].split(","))) for fields in rows}


def _rows(root: str, name: str) -> list[list[str]]:
    path = os.path.join(root, "etc", name)
    try:
        with open(path, encoding="utf-8") as file:
            return [line.rstrip("\n").split(":") for line in file]
    except FileNotFoundError:
        raise OrchError("this is not the root of a system", details=(f"{path} is missing",)) from None
