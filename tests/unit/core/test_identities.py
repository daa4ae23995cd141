"""Identities are read from the texts that they are written as."""

from __future__ import annotations

import pytest

from orchestrator.core.identities import ModelIdentity, build_name, device_identity, device_name


@pytest.mark.parametrize("name", ["m.gguf", "odd:name: 7.gguf"])
def test_a_model_is_read_from_its_text(name: str) -> None:
    identity = ModelIdentity(name, 4096, 1_700_000_000_000_000_001)
    assert str(identity) == f"{name}:4096:1700000000000000001"
    assert ModelIdentity.parse(str(identity)) == identity


def test_a_device_keeps_its_name() -> None:
    assert device_identity("NVIDIA H200", 143_771) == "NVIDIA H200:143771"
    assert device_name(device_identity("odd: name", 8)) == "odd: name"


def test_two_builds_of_one_commit_have_two_names() -> None:
    assert build_name("b7 (abc)", "0123456789abcdef") == "b7 (abc) 0123456789ab"
