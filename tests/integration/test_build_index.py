"""Source archives from a package index on loopback: found, checked, unpacked, and never executed."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.core.errors import OrchError, UsageError
from orchestrator.engines.build import package_index as build_index
from orchestrator.engines.build.sources import write_build_info
from tests.integration.engine_source import write_source

PACKAGE = "ik-llama-cpp-python"


class Index:
    """What a package index serves."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.answers: dict[str, tuple[str, bytes]] = {}

    def put(self, version: str, data: bytes, *, sha256: str | None = None) -> str:
        name = f"ik_llama_cpp_python-{version}.tar.gz"
        self.answers[f"/files/{name}"] = ("application/gzip", data)
        link = f"../../files/{name}#sha256={sha256 or hashlib.sha256(data).hexdigest()}"
        page = self.answers.get(f"/simple/{PACKAGE}/", ("text/html", b""))[1]
        self.answers[f"/simple/{PACKAGE}/"] = ("text/html", page + f'<a href="{link}">{name}</a>'.encode())
        return link


@pytest.fixture
def index() -> Iterator[Index]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, data = served.answers.get(self.path, ("", b""))
            self.send_response(200 if kind else 404)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Tests print what they have to say themselves."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Index(server.server_port)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def archive(tmp_path: Path, *, extra: tarfile.TarInfo | None = None) -> bytes:
    source = write_source(tmp_path / "engine")
    (source / "common" / "CMakeLists.txt").write_text("# runs cmake/build-info-gen-cpp.cmake\n")
    ran = tmp_path / "ran"
    (tmp_path / "setup.py").write_text(f"open({str(ran)!r}, 'w')\n")
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        tar.add(tmp_path / "setup.py", "ik_llama_cpp_python-0.1.5/setup.py")
        tar.add(source, "ik_llama_cpp_python-0.1.5/vendor/ik_llama.cpp")
        if extra is not None:
            tar.addfile(extra)

    return data.getvalue()


def find(index: Index, version: str | None = None) -> build_index.Archive:
    return build_index.find(PACKAGE, version, {"PIP_INDEX_URL": f"{index.url}/simple"})


def ignore(_: int, __: int | None) -> None:
    return


def test_an_archive_is_fetched_and_only_the_engine_is_unpacked(index: Index, tmp_path: Path) -> None:
    data = archive(tmp_path)
    index.put("0.1.5", data)
    sizes: list[tuple[int, int | None]] = []
    found = find(index)
    path = build_index.download(found, str(tmp_path / "cache"), lambda size, total: sizes.append((size, total)))
    build_index.unpack_engine(path, str(tmp_path / "out"))
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    assert sizes[-1] == (len(data), len(data))
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == sorted(
        each.name for each in (tmp_path / "engine").iterdir()
    )
    assert not (tmp_path / "ran").exists(), "nothing of the archive is executed"


def test_the_newest_version_is_taken_by_its_numbers(index: Index) -> None:
    for version in ("0.1.9", "0.1.10", "0.1.2", "0.2.0rc1"):
        index.put(version, version.encode())

    assert find(index).version == "0.1.10"
    assert find(index, "0.1.2").version == find(index, "0.1.2.0").version == "0.1.2"
    with pytest.raises(UsageError, match=r"no source archive of ik-llama-cpp-python 0\.1\.11") as raised:
        find(index, "0.1.11")

    assert raised.value.details == ("it has: 0.1.10, 0.1.9, 0.1.2",)


def test_an_index_may_answer_in_json(index: Index) -> None:
    files = [
        {"filename": "a", "url": "../../files/ik_llama_cpp_python-1.0.tar.gz", "hashes": {"sha256": "a" * 64}},
        {"filename": "b", "url": "/ik_llama_cpp_python-2.0.tar.gz", "hashes": {"sha256": "b" * 64}, "yanked": "bad"},
        {"filename": "c", "url": "/ik_llama_cpp_python-3.0-py3-none-any.whl", "hashes": {"sha256": "c" * 64}},
        {"filename": "d", "url": "/ik_llama_cpp_python-4.0.tar.gz", "hashes": {}},
    ]
    kind = "application/vnd.pypi.simple.v1+json"
    index.answers[f"/simple/{PACKAGE}/"] = (kind, json.dumps({"files": files}).encode())
    found = find(index)
    assert found == (PACKAGE, "1.0", f"{index.url}/files/ik_llama_cpp_python-1.0.tar.gz", "a" * 64)


def test_a_file_that_is_not_the_promised_one_is_refused(index: Index, tmp_path: Path) -> None:
    index.put("0.1.5", b"something else", sha256="a" * 64)
    with pytest.raises(OrchError, match="not the one of the index"):
        build_index.download(find(index), str(tmp_path / "cache"), ignore)

    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "link"), [("../../../escape", None), ("link", "../../outside"), ("absolute", "/etc/passwd")]
)
def test_an_entry_that_points_elsewhere_is_refused(index: Index, tmp_path: Path, name: str, link: str | None) -> None:
    extra = tarfile.TarInfo(f"ik_llama_cpp_python-0.1.5/vendor/ik_llama.cpp/{name}")
    if link is not None:
        extra.type = tarfile.SYMTYPE
        extra.linkname = link

    index.put("0.1.5", archive(tmp_path, extra=extra))
    path = build_index.download(find(index), str(tmp_path / "cache"), ignore)
    with pytest.raises(OrchError, match="cannot be unpacked"):
        build_index.unpack_engine(path, str(tmp_path / "out"))

    assert not (tmp_path / "out").exists()


def test_an_archive_without_an_engine_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a/README"))

    with pytest.raises(OrchError, match=r"no source of llama\.cpp"):
        build_index.unpack_engine(str(path), str(tmp_path / "out"))


def test_an_index_that_does_not_answer_is_named(index: Index) -> None:
    with pytest.raises(OrchError, match="answered 404"):
        find(index)

    with pytest.raises(OrchError, match=r"cannot be reached: 127\.0\.0\.1"):
        build_index.find(PACKAGE, None, {"PIP_INDEX_URL": "http://127.0.0.1:9/simple"})

    with pytest.raises(UsageError, match="over https"):
        build_index.find(PACKAGE, None, {"PIP_INDEX_URL": "http://example.invalid/simple"})


def test_what_is_unknown_about_an_archive_stays_unknown(tmp_path: Path) -> None:
    source = write_source(tmp_path / "engine")
    (source / "common" / "CMakeLists.txt").write_text("# runs cmake/build-info-gen-cpp.cmake\n")
    write_build_info(str(source), None, None)
    text = (source / "cmake" / "build-info.cmake").read_text()
    assert text.startswith('set(BUILD_NUMBER 0)\nset(BUILD_COMMIT "unknown")\n')
    assert (source / "common" / "cmake" / "build-info-gen-cpp.cmake").exists()

    write_build_info(str(source), 4840, "8337e4cd3" + "0" * 31)
    text = (source / "cmake" / "build-info.cmake").read_text()
    assert text.startswith('set(BUILD_NUMBER 4840)\nset(BUILD_COMMIT "8337e4cd3")\n')
    assert "set(BUILD_COMMIT ${HEAD})" in text
