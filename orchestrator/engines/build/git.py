"""Fetches one commit of an engine's source, and nothing that git could be talked into beside it.

Only a full commit id is fetched, and what was checked out is compared with it. The user's git configuration is not
read, hooks and submodules are off, objects are checked, and only the protocols named here are spoken.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from orchestrator.core.errors import OrchError, UsageError

REMOTES: Mapping[str, str] = {
    "upstream": "https://github.com/ggml-org/llama.cpp",
    "ik-fork": "https://github.com/ikawrakow/ik_llama.cpp",
}

PROTOCOLS = ("https", "ssh")

_COMMIT = re.compile(r"[0-9a-f]{40}")
_BRANCH = re.compile(r"(?!-)(?!.*\.\.)[A-Za-z0-9._/-]{1,200}")

_PASSED = ("PATH", "HOME", "TMPDIR", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")

_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.symlinks=true",
    "transfer.fsckObjects=true",
    "fetch.fsckObjects=true",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "advice.detachedHead=false",
    "gc.auto=0",
)

_FETCH_LIMIT_S = 1800.0
_ASK_LIMIT_S = 120.0


def check_commit(commit: str) -> str:
    """Return the commit id in lower case.

    :raises UsageError: when it is not a full one: a short id or a branch can mean something else tomorrow
    """
    lower = commit.lower()
    if not _COMMIT.fullmatch(lower):
        raise UsageError(
            f"`{commit}` is not a full commit id",
            details=("allowed: 40 hexadecimal digits",),
            hint="name a branch or tag with `--branch`: it is looked up once, and the commit is pinned and shown",
        )

    return lower


def resolve_branch(url: str, branch: str | None, *, protocols: Sequence[str] = PROTOCOLS) -> str:
    """Return the commit that a branch or tag of the remote stands for now.

    :param branch: None for the remote's default branch
    :raises OrchError: when the remote does not answer, or has no such branch
    """
    _check_url(url)
    if branch is None:
        wanted = ["HEAD"]
    elif _BRANCH.fullmatch(branch):
        wanted = [f"refs/heads/{branch}", f"refs/tags/{branch}^{{}}", f"refs/tags/{branch}"]
    else:
        raise UsageError(
            f"`{branch}` cannot be the name of a branch or tag", hint="run `git ls-remote URL` to see them"
        )

    text = _git(["ls-remote", "--", url, *wanted], protocols=protocols, limit_s=_ASK_LIMIT_S).stdout
    found = {ref: commit for commit, _, ref in (line.partition("\t") for line in text.splitlines())}
    commit = next((found[ref] for ref in wanted if ref in found), None)
    if commit is None:
        raise OrchError(f"{url} has no branch or tag `{branch or 'HEAD'}`", hint=f"run `git ls-remote {url}`")

    return check_commit(commit)


def fetch(repository: str, url: str, commit: str, *, protocols: Sequence[str] = PROTOCOLS) -> None:
    """Get a commit with its history (without the content of older commits) into a repository of our own.

    :param repository: a bare repository's directory, made when it is not there
    :raises OrchError: when it cannot be had
    """
    _check_url(url)
    check_commit(commit)
    if not os.path.exists(os.path.join(repository, "HEAD")):
        os.makedirs(repository, exist_ok=True)
        _git(["init", "--quiet", "--bare", "--template=", repository])

    for name, value in (("url", url), ("promisor", "true"), ("partialclonefilter", "tree:0")):
        _git(["config", f"remote.origin.{name}", value], repository)

    if not _has(repository, commit):
        words = ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--filter=tree:0", "origin", commit]
        _git(words, repository, protocols=protocols, limit_s=_FETCH_LIMIT_S)

    found = _git(["rev-parse", "--verify", f"{commit}^{{commit}}"], repository).stdout.strip()
    if found != commit:
        raise OrchError("the remote sent another commit", details=(f"{url}: {found}, asked for {commit}",))


def check_out(repository: str, commit: str, directory: str, *, protocols: Sequence[str] = PROTOCOLS) -> None:
    """Write a commit's files into an empty directory. Afterwards no repository is there, so nothing finds one."""
    os.makedirs(directory)
    index = os.path.join(repository, "index")
    if os.path.exists(index):
        os.unlink(index)  # of another directory: git would believe that the files are there

    # One batch: what the filter left out is fetched for this commit alone.
    words = [f"--work-tree={directory}", "checkout", "--quiet", "--force", "--detach", commit]
    try:
        _git(words, repository, protocols=protocols, limit_s=_FETCH_LIMIT_S)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise

    head = _git(["rev-parse", "--verify", "HEAD"], repository).stdout.strip()
    if head != commit:
        raise OrchError("git checked out another commit", details=(f"{head}, asked for {commit}",))


def count_commits(repository: str, commit: str) -> int | None:
    """Return the number of commits up to this one, which is the build number; None where history is missing."""
    shallow = _git(["rev-parse", "--is-shallow-repository"], repository).stdout.strip()
    return None if shallow != "false" else int(_git(["rev-list", "--count", commit], repository).stdout)


def commits_between(repository: str, old: str, new: str, limit: int = 20) -> tuple[int, tuple[str, ...]] | None:
    """Return the number of commits from one to the other, and the newest, one line each; None when not known."""
    if not _has(repository, old) or not _has(repository, new):
        return None

    number = int(_git(["rev-list", "--count", f"{old}..{new}"], repository).stdout)
    log = _git(["log", "--format=%h %as %s", f"--max-count={limit}", f"{old}..{new}"], repository).stdout
    return number, tuple(log.splitlines())


def work_tree_commit(directory: str) -> tuple[str | None, int | None, bool]:
    """Return a checkout's commit, its build number, and whether files differ from the commit."""
    git_dir = os.path.join(directory, ".git")
    if not os.path.exists(git_dir) or shutil.which("git") is None:
        return None, None, False

    try:
        commit = _in(directory, ["rev-parse", "--verify", "HEAD"]).strip()
        shallow = _in(directory, ["rev-parse", "--is-shallow-repository"]).strip() != "false"
        number = None if shallow else int(_in(directory, ["rev-list", "--count", "HEAD"]))
        changed = bool(_in(directory, ["status", "--porcelain", "--untracked-files=no"]).strip())
    except OrchError:
        return None, None, False  # a repository without a commit, or of another user

    return commit, number, changed


def listed_files(directory: str) -> tuple[str, ...] | None:
    """Return the files of a checkout that git does not ignore, relative; None when it is no checkout."""
    if not os.path.exists(os.path.join(directory, ".git")) or shutil.which("git") is None:
        return None

    try:
        text = _in(directory, ["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
    except OrchError:
        return None

    return tuple(sorted({name for name in text.split("\0") if name}))


def _in(directory: str, words: Sequence[str]) -> str:
    return _git(["-C", directory, *words]).stdout


def _has(repository: str, commit: str) -> bool:
    # Without the remote: asking for a commit that is not there would fetch it.
    done = _run(["cat-file", "-e", f"{commit}^{{commit}}"], repository, (), _ASK_LIMIT_S)
    return done.returncode == 0


def _check_url(url: str) -> None:
    # `ext::sh -c ...` runs a program; a word that begins with a dash is an option.
    if url.startswith("-") or "::" in url:
        raise UsageError(f"`{url}` is no address of a git repository", hint="give an https:// address")


def _git(
    words: Sequence[str], repository: str | None = None, *, protocols: Sequence[str] = (), limit_s: float = _ASK_LIMIT_S
) -> subprocess.CompletedProcess[str]:
    done = _run(words, repository, protocols, limit_s)
    if done.returncode != 0:
        verb = next((word for word in words if not word.startswith("-")), "")
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise OrchError(
            f"`git {verb}` failed",
            details=tuple(lines[-4:]) or (f"exit code {done.returncode}",),
            hint="is the network there? `--path CHECKOUT` and `--pypi` are other sources" if protocols else None,
        )

    return done


def _run(
    words: Sequence[str], repository: str | None, protocols: Sequence[str], limit_s: float
) -> subprocess.CompletedProcess[str]:
    program = shutil.which("git")
    if program is None:
        raise OrchError("git is not installed", hint="run `sudo apt install git`, or build with `--pypi`")

    settings = [word for setting in _SETTINGS for word in ("-c", setting)]
    where = [f"--git-dir={repository}"] if repository is not None else []
    try:
        return subprocess.run(
            [program, *settings, *where, *words],
            env=_environment(protocols),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=limit_s,
        )
    except subprocess.TimeoutExpired as error:
        raise OrchError(f"git did not end within {limit_s:g} s", hint="try again: what was fetched stays") from error


def _environment(protocols: Sequence[str]) -> dict[str, str]:
    env = {name: os.environ[name] for name in _PASSED if name in os.environ}
    env |= {name: value for name, value in os.environ.items() if name.lower() in _PROXIES}
    return {
        **env,
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        # No protocol at all where nothing is to be fetched: a missing object is an error then, not a download.
        "GIT_ALLOW_PROTOCOL": ":".join(protocols) or "none",
    }
