"""The texts by which what was learned of a build, a model's file or a device is found again."""

from __future__ import annotations

from typing import NamedTuple


class ModelIdentity(NamedTuple):
    """What differs once a model's file has changed. As text `name:size:time`.

    :param name: of the file, without its directory
    """

    name: str
    size_bytes: int
    changed_ns: int

    def __str__(self) -> str:
        return ":".join(map(str, self))

    @classmethod
    def parse(cls, text: str) -> ModelIdentity:
        """Return the identity that a text is of; a name may have colons in it."""
        name, size_bytes, changed_ns = text.rsplit(":", 2)
        return cls(name, int(size_bytes), int(changed_ns))


def build_name(label: str, sha256: str) -> str:
    """Return what tells one build from another: two of one commit differ in their flags.

    :param label: the build as it describes itself, `b1234 (abc)`
    :param sha256: of its program
    """
    return f"{label} {sha256[:12]}"


def device_identity(name: str, total_mib: int) -> str:
    """Return what tells one device from another that has its place: `name:total`."""
    return f"{name}:{total_mib}"


def device_name(identity: str) -> str:
    """Return the name of a device from its identity."""
    return identity.rpartition(":")[0]
