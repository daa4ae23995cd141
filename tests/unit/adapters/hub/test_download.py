"""A file fetched over a network that breaks: continued, checked, named once, whatever happens on the way."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.hub import download as downloading
from orchestrator.adapters.hub.download import ChangedError, Version, download, version_of
from orchestrator.adapters.hub.listing import list_files
from orchestrator.adapters.hub.partial import kept_bytes, remove_partial
from orchestrator.core.errors import OrchError, UsageError
from orchestrator.core.plan.repository import RepositoryFile
from orchestrator.core.setup.pulls import partial_name
from tests.fakes.hub import Fault, StubHub, serving

REPOSITORY = "org/Model-GGUF"
FILE = "Model-Q4_K_M.gguf"
SIZE = 1_500_000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "on the hub.gguf"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return path


@pytest.fixture
def hub(source: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StubHub]:
    monkeypatch.setattr(downloading, "TIMEOUT_S", 2.0)
    monkeypatch.setattr(downloading, "PAUSES_S", (0.0,) * len(downloading.PAUSES_S))
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    with serving(StubHub({REPOSITORY: {FILE: str(source)}}, checksums=True)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


@pytest.fixture
def target(tmp_path: Path) -> str:
    return str(tmp_path / "models" / FILE)


def version() -> Version:
    return version_of(REPOSITORY, next(file for file in list_files(REPOSITORY) if file.path == FILE))


def fetched(target: str) -> int:
    return download(REPOSITORY, version(), target, lambda step, done: None)


def first_bytes(hub: StubHub) -> list[int]:
    """Return from which byte on each request to the host of the files asked."""
    return [int((each.range or "bytes=0-").removeprefix("bytes=").split("-")[0]) for each in hub.requests
            if each.host == "cdn"]  # fmt: skip


def files_beside(target: str) -> set[str]:
    return set(os.listdir(os.path.dirname(target)))


def test_a_file_arrives_whole_with_its_checksum_beside_it(hub: StubHub, source: Path, target: str) -> None:
    assert fetched(target) == SIZE
    assert Path(target).read_bytes() == source.read_bytes()
    noted = Path(target + ".sha256").read_text()
    assert noted == f"{hashlib.sha256(source.read_bytes()).hexdigest()}  {FILE}\n"
    assert files_beside(target) == {FILE, FILE + ".sha256"}


@pytest.mark.parametrize("fault", ["break", "reset"])
@pytest.mark.parametrize("seed", range(8))
def test_wherever_the_connection_breaks_each_byte_is_sent_once(
    hub: StubHub, source: Path, target: str, fault: Fault, seed: int
) -> None:
    hub.faults[FILE], hub.break_anywhere = fault, random.Random(seed)
    assert fetched(target) == SIZE
    assert Path(target).read_bytes() == source.read_bytes()
    starts = first_bytes(hub)
    assert len(starts) > 2 and starts == sorted(set(starts))
    if fault == "break":  # what a reset throws away in the kernel has to be sent again
        assert hub.sent == SIZE


def test_a_try_that_was_given_up_is_continued_by_the_next(hub: StubHub, source: Path, target: str) -> None:
    hub.faults[FILE], hub.break_after, hub.breaks_left = "break", 400_000, 2
    asked = version()
    seen: list[int] = []

    def interrupt(step: str, done: int) -> None:
        seen.append(done)
        if step == "broken" and done > 700_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(REPOSITORY, asked, target, interrupt)

    assert not os.path.exists(target)
    kept = kept_bytes(target, asked.size, asked.identity)
    assert kept == 800_000
    hub.faults.clear()
    hub.requests.clear()
    assert fetched(target) == SIZE - kept
    assert first_bytes(hub) == [kept]
    assert Path(target).read_bytes() == source.read_bytes()


def test_a_file_that_is_there_whole_is_not_asked_for(hub: StubHub, target: str) -> None:
    fetched(target)
    hub.requests.clear()
    assert fetched(target) == 0
    assert not first_bytes(hub)
    os.unlink(target + ".sha256")  # then it is read
    assert fetched(target) == 0
    assert not first_bytes(hub) and os.path.exists(target + ".sha256")


def test_a_file_of_the_same_size_and_other_bytes_is_fetched(hub: StubHub, source: Path, target: str) -> None:
    os.makedirs(os.path.dirname(target))
    Path(target).write_bytes(bytes(SIZE))
    assert fetched(target) == SIZE
    assert Path(target).read_bytes() == source.read_bytes()


def test_a_file_that_changed_on_the_hub_is_begun_anew(hub: StubHub, source: Path, target: str) -> None:
    old = version()
    kept = partial_name(target, old.size, old.identity)
    os.makedirs(os.path.dirname(target))
    Path(kept).write_bytes(source.read_bytes()[:500_000])
    source.write_bytes(random.Random(2).randbytes(SIZE))
    with pytest.raises(ChangedError, match="was changed while it was fetched"):
        download(REPOSITORY, old, target, lambda step, done: None)

    assert os.path.getsize(kept) == 500_000  # not a byte of the new version
    assert fetched(target) == SIZE
    assert Path(target).read_bytes() == source.read_bytes()
    assert files_beside(target) == {FILE, FILE + ".sha256"}


def test_without_checksums_versions_are_told_apart_by_their_tag(
    hub: StubHub, source: Path, tmp_path: Path, target: str
) -> None:
    hub.checksums = False
    before = version()
    other = tmp_path / "other.gguf"
    other.write_bytes(random.Random(2).randbytes(SIZE))
    hub.repositories = {REPOSITORY: {FILE: str(other)}}
    assert version().identity != before.identity
    with pytest.raises(ChangedError):
        download(REPOSITORY, before, target, lambda step, done: None)

    assert fetched(target) == SIZE
    assert Path(target).read_bytes() == other.read_bytes()


@pytest.mark.parametrize("said", [SIZE - 5, SIZE + 5])
@pytest.mark.parametrize("fault", [None, "whole"])
def test_a_file_of_another_size_than_listed_is_not_begun(
    hub: StubHub, target: str, said: int, fault: Fault | None
) -> None:
    hub.checksums = False
    hub.faults |= {FILE: fault} if fault else {}
    with pytest.raises(ChangedError) as caught:
        download(REPOSITORY, Version(RepositoryFile(FILE, said), said, "0" * 16), target, lambda step, done: None)

    assert caught.value.details[1] == f"its size is {SIZE} bytes, and was {said}"
    assert files_beside(target) == set()


def test_wrong_bytes_never_get_the_name_and_are_not_kept(hub: StubHub, target: str) -> None:
    hub.faults[FILE] = "rotten"
    with pytest.raises(ChangedError, match="what arrived is not what the hub names") as caught:
        fetched(target)

    assert "SHA-256" in caught.value.details[0]
    assert files_beside(target) == set()


def test_a_kept_part_that_went_bad_on_the_disk_is_found_out(hub: StubHub, source: Path, target: str) -> None:
    asked = version()
    os.makedirs(os.path.dirname(target))
    Path(partial_name(target, asked.size, asked.identity)).write_bytes(bytes(500_000))
    with pytest.raises(ChangedError, match="is not what the hub names"):
        fetched(target)

    assert fetched(target) == SIZE
    assert Path(target).read_bytes() == source.read_bytes()


def test_a_server_without_ranges_is_taken_from_the_beginning(hub: StubHub, source: Path, target: str) -> None:
    asked = version()
    os.makedirs(os.path.dirname(target))
    Path(partial_name(target, asked.size, asked.identity)).write_bytes(source.read_bytes()[:500_000])
    hub.faults[FILE] = "whole"
    assert fetched(target) == SIZE
    assert Path(target).read_bytes() == source.read_bytes()


def test_a_hub_that_is_busy_is_asked_again_and_not_for_ever(hub: StubHub, target: str) -> None:
    hub.refusals = 3
    assert fetched(target) == SIZE
    os.unlink(target)
    hub.refusals = 1000
    with pytest.raises(OrchError, match="the hub failed") as caught:
        fetched(target)

    assert any("HTTP 503" in line for line in caught.value.details)
    assert 1000 - hub.refusals == len(downloading.PAUSES_S)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("hang", "did not answer in time"),
        ("elsewhere", "is answered with bytes 7-"),
        ("gzip", "compresses"),
        ("gone", "not there"),
        ("loop", "in a circle"),
    ],
)
def test_what_cannot_be_fetched_says_why(
    hub: StubHub, target: str, monkeypatch: pytest.MonkeyPatch, fault: Fault, said: str
) -> None:
    monkeypatch.setattr(downloading, "TIMEOUT_S", 0.2)
    asked = version()
    hub.faults[FILE] = fault
    with pytest.raises(OrchError) as caught:
        download(REPOSITORY, asked, target, lambda step, done: None)

    assert said in "\n".join((caught.value.message, *caught.value.details))
    assert not os.path.exists(target)


def test_the_token_goes_to_the_hub_alone(hub: StubHub, target: str) -> None:
    fetched(target)
    assert {(each.host, each.authorization) for each in hub.requests} == {("hub", "Bearer hf_right"), ("cdn", None)}


def test_a_gated_file_names_what_to_do(hub: StubHub, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = version()
    hub.gated.add(REPOSITORY)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UsageError, match="gated") as caught:
        download(REPOSITORY, asked, target, lambda step, done: None)

    assert "accept its terms" in (caught.value.hint or "")
    assert "hf_wrong" not in "\n".join((caught.value.message, *caught.value.details, caught.value.hint or ""))


def test_two_that_fetch_the_same_fetch_it_once(hub: StubHub, source: Path, target: str) -> None:
    asked, waits = version(), threading.Event()
    hub.faults[FILE] = "stall"
    arrived = threading.Event()
    counts: dict[str, int] = {}

    def first(step: str, done: int) -> None:
        arrived.set()

    def second(step: str, done: int) -> None:
        if step == "waiting":
            waits.set()

    watches = {"first": first, "second": second}

    def pull(name: str) -> None:
        counts[name] = download(REPOSITORY, asked, target, watches[name])

    threads = [threading.Thread(target=pull, args=(name,)) for name in watches]
    threads[0].start()
    assert arrived.wait(10)
    assert not remove_partial(partial_name(target, asked.size, asked.identity))
    threads[1].start()
    assert waits.wait(10)
    hub.released.set()
    for thread in threads:
        thread.join(10)

    assert counts == {"first": SIZE, "second": 0}
    assert Path(target).read_bytes() == source.read_bytes()
    assert files_beside(target) == {FILE, FILE + ".sha256"}


def test_where_nothing_can_be_written_is_said(hub: StubHub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OrchError, match="a model cannot be written") as caught:
        fetched(str(tmp_path / "file" / FILE))

    assert str(tmp_path / "file") in caught.value.details[0]


def test_an_empty_file_is_whole_at_once(hub: StubHub, source: Path, target: str) -> None:
    source.write_bytes(b"")
    file = RepositoryFile(FILE, 0, hashlib.sha256(b"").hexdigest())
    assert download(REPOSITORY, version_of(REPOSITORY, file), target, lambda step, done: None) == 0
    assert os.path.getsize(target) == 0
