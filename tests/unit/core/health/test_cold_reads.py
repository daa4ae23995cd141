"""Weights read from the disk while an engine answers are noticed; healthy runs are left alone."""

from __future__ import annotations

from orchestrator.core.health.cold_reads import ColdReads, News, ProcessReads, add_look, add_residency, cold_text
from orchestrator.core.quantities import MIB

BEGUN = ColdReads(1000 * MIB)


def watch(
    history: ColdReads, *looks: tuple[float, int, int], used: bool = True, begin: float = 0.0
) -> tuple[ColdReads, list[News | None]]:
    """Take looks: seconds since the one before, MiB read and pages missed since then."""
    now = history.last[1][1] if history.last else ProcessReads(0, 0)
    at_s = history.last[0] if history.last else begin
    if history.last is None:
        history, _ = add_look(history, at_s, {1: now}, used=False)

    news = []
    for after_s, mib, faults in looks:
        at_s, now = at_s + after_s, ProcessReads(now.read_bytes + mib * MIB, now.major_faults + faults)
        history, new = add_look(history, at_s, {1: now}, used=used)
        news.append(new)

    return history, news


def test_a_healthy_run_is_left_alone() -> None:
    # It reads nothing; or a few pages of its program and its log, or a slot that was saved, which is no page fault.
    for looks in ([(1.0, 0, 0)] * 60, [(1.0, 1, 3)] * 60, [(1.0, 500, 0)] * 5):
        history, news = watch(BEGUN, *looks)
        assert set(news) == {None}
        assert not history.cold


def test_what_is_read_while_nothing_is_asked_is_its_own_business() -> None:
    _, news = watch(BEGUN, (1.0, 900, 50), (1.0, 900, 50), used=False)
    assert news == [None, None]


def test_the_load_before_the_first_look_does_not_count() -> None:
    history, _ = add_look(BEGUN, 100.0, {1: ProcessReads(1000 * MIB, 5000)}, used=True)
    assert not history.cold
    assert watch(history, (1.0, 0, 0))[1] == [None]


def test_a_process_that_was_found_later_counts_from_then_on_and_with_the_others() -> None:
    wrapper, loaded = ProcessReads(MIB, 5), ProcessReads(1000 * MIB, 5000)
    history, _ = add_look(BEGUN, 0.0, {1: wrapper}, used=True)
    history, news = add_look(history, 1.0, {1: wrapper, 2: loaded}, used=True)
    assert (news, history.looks[-1].read_bytes) == (None, 0)
    read = ProcessReads(1060 * MIB, 5100)
    history, news = add_look(history, 2.0, {1: ProcessReads(51 * MIB, 50), 2: read}, used=True)
    assert (news, history.cold) == ("cold", 110 * MIB)
    assert add_look(history, 3.0, {2: read}, used=True)[1] is None  # the wrapper has ended


def test_a_tenth_of_the_model_read_again_within_the_window_is_noticed_once() -> None:
    history, news = watch(BEGUN, (1.0, 60, 9), (1.0, 30, 9), (1.0, 20, 9), (1.0, 80, 9))
    assert news == [None, None, "cold", None]
    assert history.cold == 190 * MIB
    assert watch(BEGUN, *[(6.0, 60, 9)] * 20)[1] == [None, "cold", *[None] * 18]
    assert watch(BEGUN, *[(11.0, 60, 9)] * 20)[1] == [None] * 20  # never so much in ten seconds


def test_bounds_hold_for_small_models_and_for_large_ones() -> None:
    assert watch(ColdReads(5 * MIB), (1.0, 7, 9))[1] == [None]
    assert watch(ColdReads(5 * MIB), (1.0, 8, 9))[1] == ["cold"]
    assert watch(ColdReads(40_000 * MIB), (1.0, 255, 9))[1] == [None]
    assert watch(ColdReads(40_000 * MIB), (1.0, 256, 9))[1] == ["cold"]


def test_what_a_profile_has_read_when_first_needed_counts_from_the_second_time() -> None:
    history, news = watch(ColdReads(1000 * MIB, allowed_bytes=1000 * MIB), (5.0, 500, 9), (5.0, 500, 9))
    assert news == [None, None]
    assert watch(history, (5.0, 120, 9))[1] == ["cold"]


def test_it_is_over_when_answers_need_the_disk_no_more() -> None:
    history, _ = watch(BEGUN, (1.0, 120, 9))
    history, news = watch(history, *[(1.0, 0, 0)] * 12)
    assert [each for each in news if each] == ["warm"]
    assert not history.cold
    assert watch(history, (1.0, 120, 9))[1] == ["cold"]


def test_it_is_over_when_all_is_back_and_nothing_was_read_for_a_while() -> None:
    history, _ = watch(BEGUN, (1.0, 120, 9))
    assert add_residency(history, 5.0, 1.0) == (history, None)  # just read: it may be pushed out again
    assert add_residency(history, 12.0, 0.9) == (history, None)
    assert add_residency(history, 12.0, None) == (history, None)
    over, news = add_residency(history, 12.0, 0.99)
    assert (over.cold, news) == (0, "warm")
    assert add_residency(over, 13.0, 0.99) == (over, None)


def test_a_text_says_what_was_seen_and_what_to_do() -> None:
    assert cold_text(1200 * MIB, 0.85, 0.4, mapped=True, locked=False) == (
        "weights are read from the disk while it answers (1200 MiB in 10 s, 85% of the host's part was in the page"
        " cache then; programs waited for disks 40% of the time): fewer models or programs beside it, a smaller"
        " quantisation, or more memory; `memory.mlock = true` keeps what fits"
    )
    swapped = cold_text(90 * MIB, None, None, mapped=False, locked=True)
    assert swapped.startswith("its memory is read back from swap while it answers (90 MiB in 10 s): fewer")
    assert "mlock" not in swapped
