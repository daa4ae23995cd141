"""Cards as people and drivers name them."""

from __future__ import annotations

import pytest

from orchestrator.core.errors import UsageError
from orchestrator.core.plan.speed.cards import CARDS, card_of_device, find_card


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("RTX 3060 12GB", "RTX 3060 12GB"),
        ("rtx3060-12gb", "RTX 3060 12GB"),
        ("GeForce RTX 3060 8G", "RTX 3060 8GB"),
        ("4090", "RTX 4090 24GB"),
        ("nvidia_rtx_4090", "RTX 4090 24GB"),
        ("4090 laptop", "RTX 4090 Laptop 16GB"),
        ("3060 mobile", "RTX 3060 Laptop 6GB"),
        ("4070tisuper", "RTX 4070 Ti Super 16GB"),
        ("RTX 4070 Ti", "RTX 4070 Ti 12GB"),
        ("4060ti 16 GiB", "RTX 4060 Ti 16GB"),
        ("gtx1080ti", "GTX 1080 Ti 11GB"),
        ("RX 7900 XTX", "RX 7900 XTX 24GB"),
        ("7900xt", "RX 7900 XT 20GB"),
        ("AMD Radeon RX 9060 XT 16GB", "RX 9060 XT 16GB"),
        ("rx580", "RX 580 8GB"),
        ("Arc B580", "Arc B580 12GB"),
        ("a770 16gb", "Arc A770 16GB"),
        ("a4000", "RTX A4000 16GB"),
        ("RTX 4000 Ada Generation", "RTX 4000 Ada 20GB"),
        ("RTX PRO 6000 Blackwell", "RTX PRO 6000 96GB"),
        ("6000 ada", "RTX 6000 Ada 48GB"),
        ("Tesla P40", "P40 24GB"),
        ("titan rtx", "Titan RTX 24GB"),
        ("H100 SXM5", "H100 SXM 80GB"),
        ("A100-SXM4-40GB", "A100 40GB"),
        ("Radeon Pro W7900", "Radeon PRO W7900 48GB"),
    ],
)
def test_a_card_is_found_as_it_is_written(text: str, name: str) -> None:
    assert find_card(text).full_name == name


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("3060", ["RTX 3060 12GB", "RTX 3060 8GB"]),
        ("RTX 4060 Ti", ["RTX 4060 Ti 16GB", "RTX 4060 Ti 8GB"]),
        ("3080", ["RTX 3080 12GB", "RTX 3080 10GB"]),
        ("a770", ["Arc A770 16GB", "Arc A770 8GB"]),
        ("H100", ["H100 PCIe 80GB", "H100 SXM 80GB"]),
    ],
)
def test_a_name_of_several_cards_lists_them(text: str, meant: list[str]) -> None:
    with pytest.raises(UsageError, match=f"which `{text}`") as caught:
        find_card(text)

    assert [detail.partition(":")[0] for detail in caught.value.details] == meant


def test_a_size_that_a_card_does_not_have_is_said() -> None:
    with pytest.raises(UsageError, match="there is no RTX 4090 with 12GB") as caught:
        find_card("RTX 4090 12GB")

    assert caught.value.details == ("it has 24GB",)


@pytest.mark.parametrize("text", ["", "gpu", "rx 4090", "RTX 9999", "M2 Ultra", "12GB", "Ryzen AI Max 395", "40 90"])
def test_what_is_no_card_is_refused_with_a_way_out(text: str) -> None:
    with pytest.raises(UsageError, match="no card that orch knows") as caught:
        find_card(text)

    assert "--vram" in (caught.value.hint or "")


def test_a_card_of_the_wrong_series_names_the_right_one() -> None:
    with pytest.raises(UsageError) as caught:
        find_card("rx 4090")

    assert "RTX 4090 24GB" in caught.value.details[0]


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.full_name)
def test_every_card_has_a_name_that_means_it_alone(card: object) -> None:
    assert find_card(card.full_name) == card  # type: ignore[attr-defined]


def test_the_figures_are_those_of_cards() -> None:
    assert len({(card.name, card.total_mib) for card in CARDS}) == len(CARDS) >= 60
    assert all(4 << 10 <= card.total_mib <= 192 << 10 and 100 <= card.bandwidth_gb_s <= 8000 for card in CARDS)


@pytest.mark.parametrize(
    ("name", "total_mib", "card"),
    [
        ("NVIDIA GeForce RTX 3060", 12288, "RTX 3060 12GB"),
        ("NVIDIA GeForce RTX 3060", 8192, "RTX 3060 8GB"),
        ("NVIDIA GeForce RTX 4060 Laptop GPU", 8188, "RTX 4060 Laptop 8GB"),
        ("AMD Radeon RX 7900 XTX", 24560, "RX 7900 XTX 24GB"),
        ("NVIDIA A100-SXM4-80GB", 81920, "A100 SXM 80GB"),
        ("Tesla V100-SXM2-16GB", 16160, "V100 16GB"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 97887, "RTX PRO 6000 96GB"),
        ("NVIDIA H200", 143771, "H200 141GB"),
        ("NVIDIA H100 80GB HBM3", 81559, None),  # the name is silent about the form, and their bandwidths differ
        ("NVIDIA GeForce RTX 3060", 24576, None),
        ("llvmpipe", 1024, None),
    ],
)
def test_a_driver_s_name_and_total_tell_the_card(name: str, total_mib: int, card: str | None) -> None:
    found = card_of_device(name, total_mib)
    assert (found.full_name if found else None) == card
