from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.failure.quarantine import KEPT, Quarantine, QuarantinePolicy, add_answer, add_death

POLICY = QuarantinePolicy(keep_s=600.0)


def died(*deaths: tuple[set[str], float]) -> Quarantine:
    known = Quarantine()
    for digests, now in deaths:
        known = add_death(known, digests, len(digests), now, POLICY)

    return known


def test_one_death_makes_a_suspect_and_no_more() -> None:
    known = died(({"a", "b"}, 0.0))
    assert known.suspected("a", 1.0, POLICY) and known.suspected("b", 1.0, POLICY)
    assert known.refused_for_s("a", 1.0, POLICY) is None
    assert not known.suspected("c", 1.0, POLICY)


def test_a_suspect_that_was_alone_at_the_second_death_is_refused_for_a_time() -> None:
    known = died(({"a", "b"}, 0.0), ({"a"}, 10.0))
    assert known.refused_for_s("a", 10.0, POLICY) == 600.0
    assert known.refused_for_s("a", 609.0, POLICY) == 1.0
    assert known.refused_for_s("a", 610.0, POLICY) is None
    assert not known.suspected("a", 610.0, POLICY)
    assert known.refused_for_s("b", 10.0, POLICY) is None


def test_a_death_in_company_proves_nothing_until_the_third() -> None:
    known = died(({"a", "b"}, 0.0), ({"a", "c"}, 10.0))
    assert known.refused_for_s("a", 10.0, POLICY) is None
    known = add_death(known, {"a", "d"}, 2, 20.0, POLICY)
    assert known.refused_for_s("a", 20.0, POLICY) == 600.0
    assert known.refused_for_s("c", 20.0, POLICY) is None


def test_two_requests_with_one_digest_were_not_alone() -> None:
    known = add_death(died(({"a"}, 0.0)), ["a", "a"], 2, 1.0, POLICY)
    assert known.refused_for_s("a", 1.0, POLICY) is None


def test_an_answer_clears_a_suspect_but_not_what_is_refused() -> None:
    assert not add_answer(died(({"a"}, 0.0)), "a").requests
    known = died(({"a"}, 0.0), ({"a"}, 1.0))
    assert add_answer(known, "a") is known
    assert add_answer(known, "b") is known


def test_a_death_long_ago_is_forgotten() -> None:
    known = died(({"a"}, 0.0), ({"a"}, 600.0))
    assert known.requests["a"].deaths == 1


def test_only_the_newest_digests_are_kept() -> None:
    known = died(*(({f"{number}"}, float(number) / 1000) for number in range(KEPT + 50)))
    assert len(known.requests) == KEPT
    assert "49" not in known.requests and "50" in known.requests


@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from("abcde"), min_size=1), st.floats(0.0, 50.0), st.sampled_from([*"abcde", ""])),
        max_size=20,
    )
)
def test_whoever_is_refused_has_met_two_deaths_without_an_answer_between(
    events: list[tuple[set[str], float, str]],
) -> None:
    known, now = Quarantine(), 0.0
    met = dict.fromkeys("abcde", 0)
    for digests, passed_s, answered in events:
        now += passed_s
        known = add_death(known, digests, len(digests), now, POLICY)
        for digest in digests:
            met[digest] += 1

        for digest in met:
            refused = known.refused_for_s(digest, now, POLICY)
            assert refused is None or (met[digest] >= 2 and refused <= POLICY.keep_s)
            assert refused is None or not known.suspected(digest, now, POLICY)

        if answered:
            known = add_answer(known, answered)
            if known.refused_for_s(answered, now, POLICY) is None:
                met[answered] = 0
