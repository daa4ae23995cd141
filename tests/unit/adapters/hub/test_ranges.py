"""Headers read over a network that fails in every way, and the bytes that this costs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.gguf.reader import GgufError, GgufHeader, read_gguf, read_header
from orchestrator.adapters.gguf.writer import Field, TensorData, write_gguf, zeros
from orchestrator.adapters.hub import listing, ranges
from orchestrator.adapters.hub.listing import list_files
from orchestrator.adapters.hub.ranges import RemoteFile
from orchestrator.core.errors import OrchError, UsageError
from orchestrator.core.exit_codes import exit_code
from orchestrator.core.plan.repository import RepositoryFile
from tests.fakes.hub import Fault, StubHub, serving

REPOSITORY = "org/Model-GGUF"
FILE = "Model-Q4_K_M.gguf"
DATA_BYTES = 20 << 30


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file with a header of 5 MB whose 20 GB of data are a hole."""
    path = str(tmp_path_factory.mktemp("models") / FILE)
    tokens = tuple(f"token number {index:07}" for index in range(180_000))
    fields = [
        Field("general.architecture", "string", "llama"),
        Field("llama.block_count", "u32", 1),
        Field("tokenizer.ggml.tokens", "string", tokens),
    ]
    write_gguf(path, fields, [TensorData("blk.0.attn_q.weight", (32, 4), "f32", zeros(128))])
    assert 5_000_000 < os.path.getsize(path) < 5_300_000
    os.truncate(path, os.path.getsize(path) + DATA_BYTES)
    return path


@pytest.fixture
def hub(model: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[StubHub]:
    monkeypatch.setattr(ranges, "TIMEOUT_S", 2.0)
    monkeypatch.setattr(listing, "TIMEOUT_S", 2.0)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    with serving(StubHub({REPOSITORY: {FILE: model, "README.md": __file__}})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


def header() -> GgufHeader:
    file = RemoteFile(REPOSITORY, FILE)
    return read_header(file.name, file)


def refusal(error: OrchError) -> str:
    return "\n".join((error.message, *error.details, error.hint or ""))


def test_a_header_over_the_network_is_the_header_on_disk(hub: StubHub, model: str) -> None:
    there, here = header(), read_gguf(model)
    assert (there.kv, there.tensors, there.file_size) == (here.kv, here.tensors, here.file_size)
    assert there.path == f"hf:{REPOSITORY}/{FILE}"


def test_a_header_of_5_mb_costs_at_most_8(hub: StubHub) -> None:
    header()
    assert 5_000_000 < hub.sent <= 8_000_000


def test_the_token_goes_to_the_hub_and_not_to_the_host_of_the_files(hub: StubHub) -> None:
    list_files(REPOSITORY)
    header()
    assert {(each.host, each.authorization) for each in hub.requests} == {("hub", "Bearer hf_right"), ("cdn", None)}


def test_nothing_but_the_listing_and_the_file_is_asked_for(hub: StubHub) -> None:
    list_files(REPOSITORY)
    header()
    assert {each.path.partition("?")[0] for each in hub.requests if each.host == "hub"} == {
        f"/api/models/{REPOSITORY}",
        f"/{REPOSITORY}/resolve/main/{FILE}",
    }


def test_a_connection_that_breaks_is_taken_up_where_it_broke(hub: StubHub, model: str) -> None:
    hub.faults[FILE], hub.breaks_left = "break", 2
    assert header().tensors == read_gguf(model).tensors
    assert hub.sent <= 8_000_000


@pytest.mark.parametrize(
    ("fault", "said", "most_bytes"),
    [
        ("whole", "sends whole files and no ranges", 8 << 20),  # what the kernel takes before we hang up
        ("break", "the connection failed", 3 * 300_000),
        ("loop", "round in a circle", 0),
        ("hang", "did not answer in time", 0),
        ("changing", "changed while it was read", 3 << 20),
        ("elsewhere", "answers a range from byte 0 with bytes 7-", 2 << 20),
        ("gzip", "answers a range", 2 << 20),
        ("gone", "not there, or private", 0),
        ("unavailable", "HTTP 503", 0),
    ],
)
def test_what_a_server_does_wrong_is_said_and_costs_little(
    hub: StubHub, fault: Fault, said: str, most_bytes: int
) -> None:
    hub.faults[FILE] = fault
    with pytest.raises(OrchError) as caught:
        header()

    assert said in refusal(caught.value)
    assert FILE in caught.value.message
    assert hub.endpoint in refusal(caught.value)
    assert caught.value.hint
    assert hub.sent <= most_bytes


def test_a_server_that_drips_is_given_up(hub: StubHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "WINDOW_S", 0.3)
    hub.faults[FILE] = "drip"
    with pytest.raises(OrchError, match="cannot be read") as caught:
        header()

    assert f"of {ranges.FIRST_WINDOW_BYTES} bytes in 0 s" in refusal(caught.value)


def test_without_a_network_it_is_said_which_address_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    for ask in (lambda: list_files(REPOSITORY), header):
        with pytest.raises(OrchError, match="no connection") as caught:
            ask()

        assert f"127.0.0.1:{port}" in refusal(caught.value)


def test_a_gated_repository_names_the_token_that_opens_it(hub: StubHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.gated.add(REPOSITORY)
    assert list_files(REPOSITORY)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    for ask in (lambda: list_files(REPOSITORY), header):
        with pytest.raises(UsageError, match="the repository is gated, and the token in HF_TOKEN does not open it"):
            ask()

    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN_PATH", "/nonexistent")
    with pytest.raises(UsageError, match="gated, and HF_TOKEN is not set") as caught:
        list_files(REPOSITORY)

    assert "HF_TOKEN" in (caught.value.hint or "")
    assert exit_code(caught.value) == 2


@pytest.mark.parametrize("token", ["hf_right", None])
def test_a_repository_that_is_not_there_may_be_private(
    hub: StubHub, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    if token is None:
        monkeypatch.delenv("HF_TOKEN")

    with pytest.raises(UsageError, match="not there, or private"):
        list_files("org/Other")


def test_a_renamed_repository_is_followed_with_the_token(hub: StubHub) -> None:
    hub.moved["old/Name"] = REPOSITORY
    hub.gated.add(REPOSITORY)
    assert {file.path for file in list_files("old/Name")} == {FILE, "README.md"}
    file = RemoteFile("old/Name", FILE)
    assert read_header(file.name, file).architecture == "llama"


def test_a_mirror_without_the_models_page_is_asked_for_the_tree(hub: StubHub) -> None:
    whole = list_files(REPOSITORY)
    hub.tree_only = True
    assert sorted(list_files(REPOSITORY)) == sorted(whole)


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>welcome</html>",
        b"",
        b"null",
        b"[]",
        b'"siblings"',
        b'{"id": "a/b", "siblings": [{"rfilename": 5}]}',
        b'{"id": "a/b", "siblings": [{}]}',
        b'{"id": "a/b", "siblings": "all of them"}',
        b'{"id": "a/b", "siblings": [7]}',
        b'{"id": "a/b", "createdAt": "yesterday", "siblings": []}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_an_answer_that_is_no_hub_s_says_so(hub: StubHub, answer: bytes) -> None:
    hub.listing = answer
    with pytest.raises(OrchError, match="the answer is not a hub's") as caught:
        list_files(REPOSITORY)

    assert hub.endpoint in refusal(caught.value)


@pytest.mark.parametrize("size", ["null", "-5", '"large"', "1e9"])
def test_a_size_that_is_none_is_not_known(hub: StubHub, size: str) -> None:
    hub.listing = f'{{"id": "a/b", "siblings": [{{"rfilename": "m.gguf", "size": {size}}}]}}'.encode()
    assert list_files(REPOSITORY) == (RepositoryFile("m.gguf", None),)


@pytest.mark.parametrize("length", [0, 3, 24, 700, 2_000_000, 4_999_999])
def test_a_file_that_ends_early_is_refused_as_on_disk(hub: StubHub, model: str, tmp_path: Path, length: int) -> None:
    cut = tmp_path / "cut.gguf"
    with open(model, "rb") as whole:
        cut.write_bytes(whole.read(length))

    hub.repositories = {REPOSITORY: {FILE: str(cut)}}
    with pytest.raises(OrchError) as caught:
        header()

    assert FILE in caught.value.message


def test_a_hostile_header_costs_no_more_than_an_honest_one(hub: StubHub, tmp_path: Path) -> None:
    hostile = tmp_path / "hostile.gguf"
    # A key of 2^62 bytes, in a file that claims to have them.
    hostile.write_bytes(
        b"GGUF" + (3).to_bytes(4, "little") + (1).to_bytes(8, "little") * 2 + (1 << 62).to_bytes(8, "little")
    )
    os.truncate(hostile, DATA_BYTES)
    hub.repositories = {REPOSITORY: {FILE: str(hostile)}}
    with pytest.raises(GgufError, match="cut short or corrupt"):
        header()

    assert hub.sent <= 2 << 20


def test_something_that_is_no_gguf_is_said_after_one_request(hub: StubHub, tmp_path: Path) -> None:
    (tmp_path / "page.gguf").write_bytes(b"<html>" * 1_000_000)
    hub.repositories = {REPOSITORY: {FILE: str(tmp_path / "page.gguf")}}
    with pytest.raises(GgufError, match="not a GGUF file"):
        header()

    assert sum(each.host == "cdn" for each in hub.requests) == 1


@pytest.mark.parametrize(
    "text", ["nowhere", "ftp://host", "http://[::1", "http://host:99999", "https://", "http://:80"]
)
def test_an_address_that_is_none_is_refused_before_the_library_is_imported(text: str) -> None:
    code = f"""
import os, sys
os.environ["HF_ENDPOINT"] = {text!r}
from orchestrator.core.errors import UsageError
from orchestrator.engines.remote_model import look_into
try:
    look_into("org/Repo")
except UsageError as error:
    assert "HF_ENDPOINT is no address" in error.message, error
    raise SystemExit(0 if "huggingface_hub" not in sys.modules else 3)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_token_that_cannot_be_one_is_said_and_not_shown(hub: StubHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_s\u00e9cret of mine")
    for ask in (lambda: list_files(REPOSITORY), header):
        with pytest.raises(UsageError, match="characters that no token has") as caught:
            ask()

        assert "cret" not in refusal(caught.value)

    assert hub.requests == []
