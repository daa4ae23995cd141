from __future__ import annotations

import asyncio
import gzip
import random
import zlib
from collections.abc import Callable
from importlib import import_module

import pytest

from orchestrator.adapters.http1 import content_codings
from orchestrator.adapters.http1.content_codings import STEP_BYTES, BodyDecoder, ContentError, content_coding, decode

zstd = import_module("backports.zstd")
COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd.compress}
CODINGS = tuple(COMPRESS)

NOISE = random.Random(1).randbytes(3 * STEP_BYTES + 7)
BODIES = {"empty": b"", "small": b'{"model": "demo"}', "long": b"x" * (5 * STEP_BYTES), "dense": NOISE}


def without_coding(data: bytes, coding: str, limit: int = 64 << 20, room: int = 1 << 40) -> tuple[bytes, int]:
    """Return what comes out, and how many bytes were counted as held."""
    held = 0

    def grow(size: int) -> bool:
        nonlocal held
        held += size
        return held <= room

    return asyncio.run(decode(data, coding, limit, grow)), held


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("name", BODIES)
def test_what_was_compressed_comes_out_and_is_counted(coding: str, name: str) -> None:
    body = BODIES[name]
    assert without_coding(COMPRESS[coding](body), coding) == (body, len(body))


@pytest.mark.parametrize("coding", CODINGS)
def test_a_bomb_is_stopped_one_step_behind_the_limit(coding: str) -> None:
    data = COMPRESS[coding](b"\0" * (64 << 20))
    held = 0

    def grow(size: int) -> bool:
        nonlocal held
        held += size
        return True

    with pytest.raises(ContentError) as caught:
        asyncio.run(decode(data, coding, 1 << 20, grow))

    assert caught.value.problem == "too_large"
    assert held <= 1 << 20


@pytest.mark.parametrize("coding", CODINGS)
def test_a_body_of_exactly_the_limit_is_taken(coding: str) -> None:
    body = b"x" * (2 * STEP_BYTES)
    assert without_coding(COMPRESS[coding](body), coding, limit=len(body))[0] == body
    with pytest.raises(ContentError, match="larger than"):
        without_coding(COMPRESS[coding](body + b"x"), coding, limit=len(body))


@pytest.mark.parametrize("coding", CODINGS)
def test_where_there_is_no_room_no_more_is_taken(coding: str) -> None:
    with pytest.raises(ContentError) as caught:
        without_coding(COMPRESS[coding](b"x" * (4 << 20)), coding, room=STEP_BYTES)

    assert caught.value.problem == "no_room"


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_no_step_takes_in_or_gives_out_much(coding: str, body: bytes) -> None:
    data = COMPRESS[coding](body)
    decoder = BodyDecoder(data, coding)
    while not decoder.ended:
        before = decoder._at
        assert len(decoder.step()) <= STEP_BYTES
        assert decoder._at - before <= STEP_BYTES


def test_data_that_gives_nothing_out_is_read_in_steps_too() -> None:
    squeeze = zlib.compressobj(wbits=31)
    data = squeeze.compress(b"a") + squeeze.flush(zlib.Z_FULL_FLUSH) + b"\0\0\0\xff\xff" * STEP_BYTES
    decoder = BodyDecoder(data, "gzip")
    assert decoder.step() == b"a"
    assert decoder._at == STEP_BYTES
    assert not decoder.ended


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:-3], "it is cut off"),
        (lambda data: data + b"x", "something follows its end"),
        (lambda data: data + data, "something follows its end"),
        (lambda data: b"", "it is cut off"),
        (lambda data: b"{}", "cannot be read as"),
        (lambda data: b"\0" * 1000, "cannot be read as"),
    ],
)
def test_what_is_broken_is_said(coding: str, damage: Callable[[bytes], bytes], said: str) -> None:
    with pytest.raises(ContentError, match=said) as caught:
        without_coding(damage(COMPRESS[coding](b'{"a": 1}')), coding)

    assert caught.value.problem == "broken"


def test_a_frame_that_wants_a_large_window_is_not_given_it() -> None:
    options = {zstd.CompressionParameter.window_log: 27}
    wide = zstd.compress(b"\0" * (32 << 20), options=options)
    with pytest.raises(ContentError, match="memory") as caught:
        without_coding(wide, "zstd")

    assert caught.value.problem == "broken"


@pytest.mark.parametrize(
    ("values", "coding"),
    [
        ([], None),
        ([b""], None),
        ([b"identity"], None),
        ([b"gzip"], "gzip"),
        ([b" GZip "], "gzip"),
        ([b"x-gzip"], "gzip"),
        ([b"zstd"], "zstd"),
        ([b"identity, gzip"], "gzip"),
        ([b"identity", b"zstd"], "zstd"),
    ],
)
def test_the_coding_of_a_body(values: list[bytes], coding: str | None) -> None:
    assert content_coding([(b"content-encoding", value) for value in values]) == coding


@pytest.mark.parametrize(
    "values", [[b"br"], [b"deflate"], [b"gzip, gzip"], [b"gzip", b"zstd"], [b"\xff"], [b"gzip;q=1"]]
)
def test_what_is_not_read_is_refused_with_what_is(values: list[bytes]) -> None:
    with pytest.raises(ContentError, match="gzip or zstd") as caught:
        content_coding([(b"content-encoding", value) for value in values])

    assert caught.value.problem == "unknown_coding"


def test_without_a_library_zstd_is_refused_and_the_package_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_codings, "_zstd_module", lambda: None)
    assert content_codings.accepted_codings() == "gzip"
    assert content_coding([(b"content-encoding", b"gzip")]) == "gzip"
    with pytest.raises(ContentError, match=r"send gzip; for zstd install the package backports\.zstd"):
        content_coding([(b"content-encoding", b"zstd")])
