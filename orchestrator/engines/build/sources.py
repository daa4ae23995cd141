"""Puts an engine's source below the build cache: from git, a package index, or a checkout on this machine.

It is always a copy of ours without a repository around it: the build can then write into it, cannot mistake somebody
else's repository for its own, and is told its number and commit by us.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from orchestrator.adapters.paths import Paths
from orchestrator.core.errors import OrchError, UsageError
from orchestrator.engines.build import git as build_git
from orchestrator.engines.build import package_index as build_index

_SKIPPED_DIRECTORIES = re.compile(r"\.git|build.*|\.venv|__pycache__|node_modules")
"""Of a directory that is no git checkout."""

_GENERATOR = """\
# Written by orch: this source archive lacks the file.
include("${CMAKE_CURRENT_LIST_DIR}/../../cmake/build-info.cmake")
configure_file("${CMAKE_CURRENT_LIST_DIR}/../build-info.cpp.in" "${CMAKE_CURRENT_LIST_DIR}/../build-info.cpp")
"""
_USES_GENERATOR = "cmake/build-info-gen-cpp.cmake"


@dataclass(frozen=True, slots=True)
class GitSource:
    """:param commit: full; None to look up `branch`"""

    url: str
    commit: str | None = None
    branch: str | None = None


@dataclass(frozen=True, slots=True)
class PypiSource:
    """:param version: None for the newest"""

    package: str
    version: str | None = None


@dataclass(frozen=True, slots=True)
class PathSource:
    path: str


Source = GitSource | PypiSource | PathSource


@dataclass(frozen=True, slots=True)
class PreparedSource:
    """A source in the build cache.

    :param directory: where the build cache keeps this source and its build tree
    :param digest: stands for the content; the same content has the same
    :param label: what people call it: `b11434`, `0.1.5`, a short commit
    :param record: for the manifest, and for `orch engines update`
    """

    directory: str
    digest: str
    label: str
    commit: str | None
    build_number: int | None
    record: dict[str, object]

    @property
    def source(self) -> str:
        return os.path.join(self.directory, "source")

    @property
    def tree(self) -> str:
        return os.path.join(self.directory, "tree")


Say = Callable[[str], None]


def prepare_source(engine: str, source: Source, paths: Paths, say: Say) -> PreparedSource:
    """Put the source below the cache, with its number and commit written into it.

    :param say: takes progress as lines for people: the pinned commit, the size of a download
    :raises OrchError: when it cannot be had
    """
    cache = os.path.join(paths.cache, "build", engine)
    os.makedirs(cache, mode=0o700, exist_ok=True)
    match source:
        case GitSource():
            prepared = _from_git(engine, source, cache, say)
        case PypiSource():
            prepared = _from_index(source, cache, say)
        case PathSource():
            prepared = _from_path(source, cache, say)

    write_build_info(
        prepared.source, prepared.build_number, prepared.commit, changed=bool(prepared.record.get("changed"))
    )
    return prepared


def source_of_record(record: dict[str, object]) -> Source:
    """Return the source to update an installed build from: the newest of the same branch, package or checkout.

    :raises OrchError: when there is nothing newer to ask for
    """
    match record:
        case {"kind": "git", "url": str(url), **rest}:
            branch = rest.get("branch")
            return GitSource(url, None, branch if isinstance(branch, str) else None)
        case {"kind": "pypi", "package": str(package)}:
            return PypiSource(package)
        case {"kind": "path", "path": str(path)}:
            return PathSource(path)

    raise OrchError("the installed build does not say what it was made from", hint="run `orch engines build ID`")


def repository_of(engine: str, paths: Paths) -> str:
    return os.path.join(paths.cache, "build", engine, "repository.git")


def write_build_info(directory: str, number: int | None, commit: str | None, *, changed: bool = False) -> None:
    """Give a source tree its number and commit, so that `--version` tells the truth; what is unknown stays unknown.

    Both engines ask git in the directory of their source and fall back on defaults; here the defaults are set, and the
    build is run where git finds nothing.
    """
    file = os.path.join(directory, "cmake", "build-info.cmake")
    if not os.path.isfile(file):
        raise OrchError("this is no source tree of llama.cpp", details=(f"there is no {file}",))

    short = commit[:9] + ("-changed" if changed else "") if commit else "unknown"
    with open(file, encoding="utf-8") as reader:
        old = reader.read()

    new = re.sub(r"^set\(BUILD_NUMBER \d+\)", f"set(BUILD_NUMBER {number or 0})", old, flags=re.MULTILINE)
    new = re.sub(r'^set\(BUILD_COMMIT "[^"]*"\)', f'set(BUILD_COMMIT "{short}")', new, flags=re.MULTILINE)
    if new != old:  # a file written anew is compiled anew
        _write(file, new)

    common = os.path.join(directory, "common")
    with open(os.path.join(common, "CMakeLists.txt"), encoding="utf-8") as reader:
        needs_generator = _USES_GENERATOR in reader.read()

    generator = os.path.join(common, *_USES_GENERATOR.split("/"))
    if needs_generator and not os.path.exists(generator):
        os.makedirs(os.path.dirname(generator), exist_ok=True)
        _write(generator, _GENERATOR)

    generated = os.path.join(common, "build-info.cpp")
    if new != old and os.path.exists(generated):
        os.unlink(generated)  # the fork does not write it again for another number


def _from_git(engine: str, source: GitSource, cache: str, say: Say) -> PreparedSource:
    commit = (
        build_git.check_commit(source.commit) if source.commit else build_git.resolve_branch(source.url, source.branch)
    )
    say(f"{source.url}: {source.branch or ('commit' if source.commit else 'default branch')} is pinned to {commit}")
    directory = os.path.join(cache, commit[:16])
    repository = os.path.join(cache, "repository.git")
    build_git.fetch(repository, source.url, commit)
    target = os.path.join(directory, "source")
    if not os.path.exists(target):
        partial = f"{target}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        build_git.check_out(repository, commit, partial)
        os.rename(partial, target)

    number = build_git.count_commits(repository, commit)
    record: dict[str, object] = {"kind": "git", "url": source.url, "commit": commit, "branch": source.branch}
    label = f"b{number}" if number else commit[:9]
    return PreparedSource(directory, commit, label, commit, number, record)


def _from_index(source: PypiSource, cache: str, say: Say) -> PreparedSource:
    archive = build_index.find(source.package, source.version)
    say(f"{archive.package} {archive.version}, sha256 {archive.sha256}")
    directory = os.path.join(cache, archive.sha256[:16])
    target = os.path.join(directory, "source")
    if not os.path.exists(target):

        def on_bytes(size: int, total: int | None) -> None:
            say(f"\r{archive.package} {archive.version}: {size >> 20} of {(total or 0) >> 20} MiB")

        path = build_index.download(archive, directory, on_bytes)
        build_index.unpack_engine(path, target)
        os.unlink(path)

    # This package is named after upstream's tags, bNNNN; the fork's package has versions of its own.
    number = int(archive.version.split(".")[0]) if archive.package == build_index.PACKAGES["upstream"] else None
    record: dict[str, object] = {"kind": "pypi", **archive._asdict()}
    label = f"b{number}" if number else f"sdist-{archive.version}"
    return PreparedSource(directory, archive.sha256, label, None, number, record)


def _from_path(source: PathSource, cache: str, say: Say) -> PreparedSource:
    path = os.path.realpath(os.path.expanduser(source.path))
    if not os.path.isfile(os.path.join(path, "ggml", "CMakeLists.txt")):
        raise UsageError(
            f"{path} is no source tree of llama.cpp",
            details=("expected: CMakeLists.txt, ggml/, common/",),
            hint="give the directory that `git clone` made",
        )

    # One tree for each checkout, whatever its content: a change then costs the compiling of what it touches.
    directory = os.path.join(cache, f"path-{hashlib.sha256(os.fsencode(path)).hexdigest()[:11]}")
    digest = copy_changed(path, os.path.join(directory, "source"))
    commit, number, changed = build_git.work_tree_commit(path)
    about = f"commit {commit}{' with changes' if changed else ''}" if commit else "no commit is known"
    say(f"{path}: {about}")
    record: dict[str, object] = {"kind": "path", "path": path, "commit": commit, "changed": changed, "sha256": digest}
    label = f"b{number}" if number else commit[:9] if commit else "local"
    return PreparedSource(directory, digest, f"{label}-changed" if changed else label, commit, number, record)


def copy_changed(origin: str, target: str) -> str:
    """Copy the files that differ, and delete those that the origin has not; the others are not touched.

    :return: sha256 over names and contents
    """
    names = build_git.listed_files(origin)
    wanted = sorted(
        name for name in (names if names is not None else _walk(origin)) if os.path.lexists(os.path.join(origin, name))
    )
    digest = hashlib.sha256()
    for name in wanted:
        old, new = os.path.join(origin, name), os.path.join(target, name)
        content = _content(old)
        if content is None:
            continue

        digest.update(f"{name}\0{len(content)}\0".encode("utf-8", "surrogateescape"))
        digest.update(content)
        if not _is_copy(old, new):
            os.makedirs(os.path.dirname(new), exist_ok=True)
            if os.path.lexists(new):
                os.unlink(new)

            shutil.copy2(old, new, follow_symlinks=False)

    kept = set(wanted)
    ours = {"common/build-info.cpp", f"common/{_USES_GENERATOR}"}
    for name in list(_walk(target)):
        if name not in kept and name not in ours:
            os.unlink(os.path.join(target, name))

    return digest.hexdigest()


def _is_copy(old: str, new: str) -> bool:
    # The one file that `write_build_info` changes differs in its time, and is copied and stamped anew each time.
    if not os.path.lexists(new):
        return False

    a, b = os.lstat(old), os.lstat(new)
    return (a.st_size, a.st_mtime_ns, stat.S_IFMT(a.st_mode)) == (b.st_size, b.st_mtime_ns, stat.S_IFMT(b.st_mode))


def _content(path: str) -> bytes | None:
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return os.fsencode(os.readlink(path))

    if not stat.S_ISREG(mode):
        return None  # a submodule's directory, a socket

    with open(path, "rb") as file:
        return file.read()


def _walk(directory: str) -> Iterator[str]:
    for here, directories, files in os.walk(directory):
        directories[:] = [name for name in directories if not _SKIPPED_DIRECTORIES.fullmatch(name)]
        for name in files:
            yield os.path.relpath(os.path.join(here, name), directory)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
