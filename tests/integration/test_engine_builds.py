"""`orch engines build` and its relatives with real cmake, ninja and a compiler, on a tree that builds in a second."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.paths import Paths, find_paths
from orchestrator.cli.main import main
from orchestrator.core.errors import OrchError, UsageError
from orchestrator.engines.build import git as build_git
from orchestrator.engines.build import installs
from tests.integration.engine_source import EMBEDDED, commit_all, git, write_source
from tests.support import ORCH, PATIENCE_S, Home, new_home, until
from tests.unit.engines.engine_scripts import HELP, program

_missing = [tool for tool in ("cmake", "ninja", "cc", "c++", "git") if shutil.which(tool) is None]
pytestmark = [
    pytest.mark.skipif(bool(_missing), reason=f"not installed here: {', '.join(_missing)}"),
    pytest.mark.skipif(not EMBEDDED.exists(), reason="the embedded engine is not installed"),
]


@pytest.fixture
def home() -> Iterator[Home]:
    with new_home() as home:
        yield home


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "source")


def paths_of(home: Home) -> Paths:
    return find_paths({"ORCH_HOME": home.root})


def build(home: Home, source: Path, *more: str) -> Any:
    words = ("engines", "build", "upstream", "--path", str(source), "--backend", "cpu", "--no-verify")
    return home.orch_json(*words, *more)


def builds(home: Home) -> dict[str, str]:
    """Build to its state."""
    listed = home.orch_json("engines", "list", "--builds")
    return {each["build"]: "current" if each["current"] else "previous" if each["previous"] else "" for each in listed}


@pytest.mark.timeout(600)
def test_a_build_is_installed_proven_verified_and_found(home: Home, source: Path) -> None:
    before = sorted(source.rglob("*"))
    words = ("engines", "build", "upstream", "--path", str(source), "--backend", "cpu", "--json")
    built = home.orch(*words, timeout_s=600)
    result = json.loads(built.stdout)
    assert "verified on the known truth: right, 24 checks passed" in built.stderr
    assert (result["current"], result["reused"], result["version"]) == (
        True,
        False,
        "0.6.0-dev (build 0, commit unknown)",
    )
    assert sorted(source.rglob("*")) == before, "the user's own tree is not written to"

    manifest = json.loads((Path(result["server"]).parents[1] / "manifest.json").read_text())
    assert sorted(manifest["files"]) == ["bin/libggml-tiny.so", "bin/llama-bench", "bin/llama-server"]
    assert manifest["cmake"]["GGML_RPC"] == "ON"
    assert manifest["smoke"]["text"].strip()

    listed = {each["id"]: each for each in home.orch_json("engines", "list")}
    assert listed["upstream"]["source"] == "installed"
    verified = listed["upstream"]["verified"]
    assert (verified["verdict"], verified["how"]) == ("right", "known truth")
    assert listed["upstream"]["path"].endswith("engines/upstream/current/bin/llama-server")
    assert [each["build"] for each in listed["upstream"]["builds"]] == [result["build"]]
    assert "1 installed build" in home.orch("engines", "list").stderr


def test_the_same_source_is_not_built_twice(home: Home, source: Path) -> None:
    first = build(home, source)
    again = build(home, source)
    assert (again["build"], again["reused"]) == (first["build"], True)


def test_an_update_keeps_the_old_build_and_rollback_goes_back(home: Home, source: Path) -> None:
    old = build(home, source)["build"]
    (source / "bench.c").write_text("int main(void) { return 1; }\n")
    updated = home.orch_json("engines", "update", "upstream", "--no-verify")
    new = updated["build"]
    assert (updated["update"]["previous"], updated["update"]["changed"]) == (old, True)
    assert builds(home) == {new: "current", old: "previous"}

    assert home.orch_json("engines", "rollback", "upstream") == {"id": "upstream", "from": new, "to": old}
    assert builds(home) == {new: "previous", old: "current"}

    refused = home.orch("engines", "remove", "upstream", "--build", old, check=False)
    assert refused.returncode == 2
    assert "is the current build" in refused.stderr

    home.orch("engines", "remove", "upstream", "--build", new)
    assert builds(home) == {old: "current"}
    refused = home.orch("engines", "rollback", "upstream", check=False)
    assert refused.returncode == 1
    assert "no earlier build" in refused.stderr

    home.orch("engines", "remove", "upstream")
    assert builds(home) == {}
    assert os.listdir(f"{home.root}/data/engines/upstream") == [".lock"]


def test_version_tells_the_commit_and_number_of_a_checkout(home: Home, source: Path) -> None:
    commit_all(source, "one")
    (source / "bench.c").write_text("int main(void) { return 1; }\n")
    commit = commit_all(source, "two")
    result = build(home, source)
    assert result["version"] == f"0.6.0-dev (build 2, commit {commit[:9]})"
    assert result["build"].startswith("b2-cpu-")
    assert result["source"]["commit"] == commit

    (source / "bench.c").write_text("int main(void) { return 2; }\n")
    assert build(home, source)["version"] == f"0.6.0-dev (build 2, commit {commit[:9]}-changed)"


def test_a_source_inside_another_repository_does_not_take_its_commit(home: Home, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    commit_all(tmp_path, "somebody else's")
    assert build(home, write_source(tmp_path / "inner"))["version"] == "0.6.0-dev (build 0, commit unknown)"


def test_a_compiler_error_is_shown_and_changes_nothing(home: Home, source: Path) -> None:
    good = build(home, source)["build"]
    (source / "server.c").write_text("int main(void) { return nonsense; }\n")
    failed = home.orch("engines", "build", "upstream", "--path", str(source), "--no-verify", check=False)
    assert failed.returncode == 1
    assert "server.c:1:25: error: 'nonsense' undeclared" in failed.stderr
    log = next(line.split("log: ")[1] for line in failed.stderr.splitlines() if line.startswith("  log: "))
    assert "nonsense" in Path(log).read_text()
    assert builds(home) == {good: "current"}


def test_a_server_that_says_something_else_is_not_installed(home: Home, source: Path, tmp_path: Path) -> None:
    good = build(home, source)["build"]
    liar = tmp_path / "liar.py"
    liar.write_text(
        "import http.server, json, sys\n"
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.end_headers()\n"
        "    def do_POST(self):\n"
        "        self.rfile.read(int(self.headers['content-length']))\n"
        "        self.send_response(200); self.end_headers()\n"
        "        self.wfile.write(json.dumps({'content': 'nonsense'}).encode())\n"
        "port = int(sys.argv[sys.argv.index('--port') + 1])\n"
        "http.server.HTTPServer(('127.0.0.1', port), Handler).serve_forever()\n"
    )
    server = program(
        tmp_path / "liar",
        f'[ "$1" = --help ] && exec cat {HELP}/upstream-b11434.help.txt',
        f'exec python3 {liar} "$@"',
    )
    write_source(source, server=server)
    failed = home.orch("engines", "build", "upstream", "--path", str(source), "--no-verify", check=False)
    assert failed.returncode == 1
    assert "what it says is wrong" in failed.stderr and "nonsense" in failed.stderr
    assert builds(home) == {good: "current"}
    assert not list(Path(home.root, "data", "engines", "upstream").glob("*.partial"))


def test_a_server_that_dies_while_loading_is_not_installed(home: Home, source: Path, tmp_path: Path) -> None:
    server = program(
        tmp_path / "dies",
        f'[ "$1" = --help ] && exec cat {HELP}/upstream-b11434.help.txt',
        "echo 'CUDA driver version is insufficient' >&2",
        "exit 7",
    )
    write_source(source, server=server)
    failed = home.orch("engines", "build", "upstream", "--path", str(source), "--no-verify", check=False)
    assert failed.returncode == 1
    assert "exit status 7" in failed.stderr and "CUDA driver version is insufficient" in failed.stderr
    assert builds(home) == {}


def test_the_other_engines_source_is_refused(home: Home, source: Path) -> None:
    failed = home.orch("engines", "build", "ik-fork", "--path", str(source), "--no-verify", check=False)
    assert failed.returncode == 1
    assert "the source is not that of `ik-fork`" in failed.stderr


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_leaves_no_process_and_goes_on_where_it_stopped(
    home: Home, source: Path, tmp_path: Path, ending: signal.Signals
) -> None:
    gate, waiting = tmp_path / "gate", tmp_path / "waiting"
    with (source / "CMakeLists.txt").open("a") as file:
        file.write(
            f"add_custom_command(OUTPUT held.txt DEPENDS ggml-tiny COMMAND sh -c "
            f'"touch {waiting}; until [ -e {gate} ]; do sleep 0.05; done; touch held.txt" VERBATIM)\n'
            "add_custom_target(held DEPENDS held.txt)\nadd_dependencies(llama-server held)\n"
        )

    running = subprocess.Popen(
        [*ORCH, "engines", "build", "upstream", "--path", str(source), "--no-verify"],
        env=home.env,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    until(waiting.exists, "the build has reached the gate")
    second = home.orch("engines", "build", "upstream", "--path", str(source), "--no-verify", check=False)
    assert second.returncode == 1
    assert "another orch is building" in second.stderr

    running.send_signal(ending)
    running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 130
    until(lambda: str(gate) not in "".join(_command_lines()), "nothing of the build runs on", 2.0)
    assert builds(home) == {}

    library = next(Path(home.root, "cache").rglob("libggml-tiny.so"))
    made_at = library.stat().st_mtime_ns
    gate.touch()
    build(home, source)
    assert library.stat().st_mtime_ns == made_at, "what was compiled is not compiled again"


def _command_lines() -> Iterator[str]:
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            yield Path("/proc", name, "cmdline").read_bytes().decode("utf-8", "replace")
        except OSError:
            continue


def test_a_full_disk_leaves_the_installed_builds_as_they_were(home: Home, source: Path) -> None:
    good = build(home, source)
    engines = f"{home.root}/data/engines"
    (source / "bench.c").write_text("int main(void) { return 1; }\n")
    # A disk of its own, with room for what is there and not for more.
    script = (
        f"cp -a {engines} {home.root}/copy && mount -t tmpfs -o size=100k tmpfs {engines} && "
        f"cp -a {home.root}/copy/. {engines} && head -c 1M /dev/zero > {engines}/rest; "
        f'"$@"; code=$?; rm {engines}/rest; "$0" -m orchestrator engines list --builds --json; exit $code'
    )
    words = ["engines", "build", "upstream", "--path", str(source), "--no-verify"]
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script, ORCH[0], *ORCH, *words],
        env=home.env,
        capture_output=True,
        text=True,
    )
    if "unshare failed" in done.stderr or "mount:" in done.stderr:
        pytest.skip("no mounts in this sandbox")

    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    listed = json.loads(done.stdout)
    assert [(each["build"], each["current"]) for each in listed] == [(good["build"], True)]


def test_a_changed_file_is_noticed_and_not_gone_back_to(home: Home, source: Path) -> None:
    old = build(home, source)
    (source / "bench.c").write_text("int main(void) { return 1; }\n")
    new = build(home, source)
    server = f"{home.root}/data/engines/upstream/current/bin/llama-server"
    assert installs.verify(server) is None

    library = Path(old["server"]).parent / "libggml-tiny.so"
    content = bytearray(library.read_bytes())
    content[-1] ^= 1
    library.write_bytes(content)
    assert "libggml-tiny.so is not the file that was installed" in str(installs.verify(old["server"]))
    refused = home.orch("engines", "rollback", "upstream", check=False)
    assert refused.returncode == 1
    assert "its sha256 differs" in refused.stderr
    assert builds(home)[new["build"]] == "current"


def test_a_commit_is_fetched_pinned_and_checked(home: Home, source: Path, tmp_path: Path) -> None:
    first = commit_all(source, "first")
    (source / "bench.c").write_text("int main(void) { return 1; }\n")
    second = commit_all(source, "second")
    git(source, "tag", "b2")
    url = f"file://{source}"
    with pytest.raises(OrchError, match="`git ls-remote` failed") as raised:
        build_git.resolve_branch(url, "main")

    assert any("'file' not allowed" in line for line in raised.value.details)

    allowed = ("file",)
    assert build_git.resolve_branch(url, None, protocols=allowed) == second
    assert build_git.resolve_branch(url, "main", protocols=allowed) == second
    assert build_git.resolve_branch(url, "b2", protocols=allowed) == second
    with pytest.raises(OrchError, match="no branch or tag `nope`"):
        build_git.resolve_branch(url, "nope", protocols=allowed)

    repository = str(tmp_path / "repository.git")
    build_git.fetch(repository, url, first, protocols=allowed)
    build_git.check_out(repository, first, str(tmp_path / "first"), protocols=allowed)
    assert "return 0" in (tmp_path / "first" / "bench.c").read_text()
    assert not (tmp_path / "first" / ".git").exists()
    assert build_git.commits_between(repository, first, second) is None

    build_git.fetch(repository, url, second, protocols=allowed)
    build_git.check_out(repository, second, str(tmp_path / "second"), protocols=allowed)
    assert "return 1" in (tmp_path / "second" / "bench.c").read_text()
    assert build_git.count_commits(repository, second) == 2
    between = build_git.commits_between(repository, first, second)
    assert between is not None and between[0] == 1 and between[1][0].endswith("second")

    git(source, "tag", "--annotate", "--message", "m", "a1")
    tag = build_git.resolve_branch(url, "a1", protocols=allowed)
    assert tag == second, "the commit that it is put on"
    other = git(source, "rev-parse", "refs/tags/a1").strip()  # an id that git takes, and that is no commit's
    with pytest.raises(OrchError, match="sent another commit"):
        build_git.fetch(repository, url, other, protocols=allowed)

    with pytest.raises(OrchError, match="checked out another commit"):
        build_git.check_out(repository, other, str(tmp_path / "other"), protocols=allowed)


def test_an_update_from_git_shows_the_commits_in_between(
    home: Home, source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for function in (build_git.resolve_branch, build_git.fetch, build_git.check_out):
        assert function.__kwdefaults__ is not None
        monkeypatch.setitem(function.__kwdefaults__, "protocols", ("file",))

    monkeypatch.setenv("ORCH_HOME", home.root)
    old = commit_all(source, "the first")
    words = ["engines", "build", "upstream", "--git", f"file://{source}", "--branch", "main", "--json", "--no-verify"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert f"main is pinned to {old}" in err
    first = json.loads(out)
    assert (first["version"], first["commit"]) == (f"0.6.0-dev (build 1, commit {old[:9]})", old)
    assert first["build"].startswith("b1-cpu-")

    for number in (1, 2):
        (source / "bench.c").write_text(f"int main(void) {{ return {number}; }}\n")
        new = commit_all(source, f"change {number}")

    assert main(["engines", "update", "upstream", "--json", "--no-verify"]) == 0
    out, err = capsys.readouterr()
    updated = json.loads(out)
    assert updated["version"] == f"0.6.0-dev (build 3, commit {new[:9]})"
    assert updated["update"]["commits"] == 2
    assert [line.split(maxsplit=2)[2] for line in updated["update"]["log"]] == ["change 2", "change 1"]
    assert "2 commits between them:" in err

    assert main(["engines", "update", "upstream", "--no-verify"]) == 0
    assert "is the newest already" in capsys.readouterr().err


def test_a_repository_cannot_make_git_run_something(source: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (source / ".gitattributes").write_text("* filter=evil\n")
    (source / ".gitmodules").write_text(f'[submodule "s"]\n\tpath = s\n\turl = ext::sh -c "touch {ran}"\n')
    commit = commit_all(source, "evil")
    hooks = tmp_path / "home" / "hooks"
    program(hooks / "post-checkout", f"touch {ran}")
    (tmp_path / "home" / ".gitconfig").write_text(
        f'[core]\n\thooksPath = {hooks}\n[filter "evil"]\n\tsmudge = touch {ran}; cat\n'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path / "home"))
        repository = str(tmp_path / "repository.git")
        build_git.fetch(repository, f"file://{source}", commit, protocols=("file",))
        program(tmp_path / "repository.git" / "hooks" / "post-checkout", f"touch {ran}")
        build_git.check_out(repository, commit, str(tmp_path / "out"), protocols=("file",))

    assert (tmp_path / "out" / "server.c").exists()
    assert not ran.exists()


@pytest.mark.parametrize("url", ["ext::sh -c true", "--upload-pack=true", "-x"])
def test_an_address_that_runs_something_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no address of a git repository"):
        build_git.fetch(str(tmp_path / "r"), url, "a" * 40)


@pytest.mark.parametrize("commit", ["main", "8337e4cd3", "a" * 39, "a" * 41, "g" * 40])
def test_only_a_full_commit_is_taken_for_one(home: Home, commit: str) -> None:
    refused = home.orch("engines", "build", "ik-fork", "--git", "--commit", commit, check=False)
    assert refused.returncode == 2
    assert "is not a full commit id" in refused.stderr
