"""What is not there is told from what cannot be looked at for want of descriptors."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters.hardware.drm_clients import vram_by_device
from orchestrator.adapters.sysfs import names_in, read_number, read_text
from tests.fakes.descriptors import no_descriptors_left


def test_what_is_not_there_is_empty(tmp_path: Path) -> None:
    (tmp_path / "vendor").write_text("0x1002\n")
    assert read_text(str(tmp_path), "vendor") == "0x1002"
    assert (read_text(str(tmp_path), "device"), names_in(str(tmp_path / "hwmon"))) == ("", [])
    assert names_in(str(tmp_path)) == ["vendor"]


@pytest.mark.parametrize(
    ("text", "number"), [("64000\n", 64000), ("-5000\n", -5000), ("--5", None), ("N/A", None), ("", None)]
)
def test_what_is_no_number_is_none(tmp_path: Path, text: str, number: int | None) -> None:
    (tmp_path / "temp1_input").write_text(text)
    assert read_number(str(tmp_path), "temp1_input") == number
    assert read_number(str(tmp_path), "temp2_input") is None


def test_without_descriptors_nothing_is_said_to_be_missing(tmp_path: Path) -> None:
    (tmp_path / "77/fdinfo").mkdir(parents=True)
    with no_descriptors_left():
        with pytest.raises(OSError, match="Too many open files"):
            read_text(str(tmp_path), "vendor")

        with pytest.raises(OSError, match="Too many open files"):
            names_in(str(tmp_path))

        with pytest.raises(OSError, match="Too many open files"):
            vram_by_device(str(tmp_path), [77])
