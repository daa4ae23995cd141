from __future__ import annotations

import asyncio

import pytest

from orchestrator.daemon.fleet.publisher import Publisher


async def waiting(publisher: Publisher[str], generation: int) -> asyncio.Task[str]:
    """A reader that has begun to wait."""
    task = asyncio.create_task(publisher.changed(generation))
    await asyncio.sleep(0)
    return task


@pytest.mark.asyncio
async def test_a_reader_behind_gets_the_newest_value_at_once() -> None:
    publisher = Publisher("first")
    assert await publisher.changed(0) == "first"
    publisher.publish("second")
    publisher.publish("third")
    assert (publisher.value, publisher.generation) == ("third", 3)
    assert await publisher.changed(1) == "third"


@pytest.mark.asyncio
async def test_one_publication_wakes_every_reader_that_is_up_to_date() -> None:
    publisher = Publisher("first")
    readers = [await waiting(publisher, publisher.generation) for _ in range(5)]
    assert not any(reader.done() for reader in readers)
    publisher.publish("second")
    assert await asyncio.gather(*readers) == ["second"] * 5


@pytest.mark.asyncio
async def test_a_reader_is_woken_once_and_sees_the_last_of_several_values() -> None:
    publisher = Publisher("first")
    woken = []

    async def read() -> None:
        woken.append(await publisher.changed(publisher.generation))

    reader = asyncio.create_task(read())
    await asyncio.sleep(0)
    publisher.publish("second")
    publisher.publish("third")
    await reader
    publisher.publish("fourth")
    await asyncio.sleep(0)
    assert woken == ["third"]


@pytest.mark.asyncio
async def test_a_reader_that_waits_for_a_later_generation_sleeps_on() -> None:
    publisher = Publisher("first")
    reader = await waiting(publisher, 3)
    publisher.publish("second")
    publisher.publish("third")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not reader.done()
    publisher.publish("fourth")
    assert await reader == "fourth"


@pytest.mark.asyncio
async def test_no_value_is_missed_by_a_reader_that_asks_again_from_where_it_was() -> None:
    publisher = Publisher("0")
    seen = []

    async def follow() -> None:
        generation = publisher.generation
        while publisher.value != "9":
            seen.append(await publisher.changed(generation))
            generation = publisher.generation

    follower = asyncio.create_task(follow())
    for number in range(1, 10):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        publisher.publish(str(number))

    await follower
    assert seen[-1] == "9"
    assert seen == sorted(set(seen))


@pytest.mark.asyncio
async def test_a_reader_that_gave_up_is_not_woken_and_not_kept() -> None:
    publisher = Publisher("first")
    for _ in range(3):
        reader = await waiting(publisher, publisher.generation)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader

    other = await waiting(publisher, publisher.generation)
    publisher.publish("second")
    assert await other == "second"


@pytest.mark.asyncio
async def test_a_reader_cancelled_in_the_moment_of_publication_does_not_disturb_the_others() -> None:
    publisher = Publisher("first")
    one, two = await waiting(publisher, 1), await waiting(publisher, 1)
    one.cancel()
    publisher.publish("second")
    assert await two == "second"
    with pytest.raises(asyncio.CancelledError):
        await one
