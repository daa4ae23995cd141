"""Descriptors of DRM clients, as amdgpu, i915 and xe show them (Documentation/gpu/drm-usage-stats.rst)."""

from __future__ import annotations

import pytest

from orchestrator.core.vram.drm_usage import DrmClient, parse_client

HEAD = "pos:\t0\nflags:\t02100002\nmnt_id:\t26\nino:\t613\n"
AMDGPU = f"""{HEAD}drm-driver:\tamdgpu
drm-client-id:\t33
drm-client-name:\tdrm-memory-vram: no field of its own
drm-pdev:\t0000:03:00.0
pasid:\t32774
drm-total-cpu:\t0
drm-total-gtt:\t20 MiB
drm-total-vram:\t600 MiB
drm-shared-vram:\t40 MiB
drm-memory-vram:\t524288 KiB
drm-resident-vram:\t524288 KiB
drm-memory-gtt:\t20480 KiB
drm-engine-gfx:\t1829302 ns
"""
XE = f"""{HEAD}drm-driver:\txe
drm-client-id:\t7
drm-pdev:\t0000:04:00.0
drm-total-system:\t96 MiB
drm-resident-system:\t96 MiB
drm-total-vram0:\t3 GiB
drm-shared-vram0:\t0
drm-resident-vram0:\t2 GiB
drm-resident-vram1:\t1024 KiB
drm-total-stolen:\t0
"""
I915_INTEGRATED = f"{HEAD}drm-driver:\ti915\ndrm-client-id:\t9\ndrm-pdev:\t0000:00:02.0\ndrm-total-system0:\t90 MiB\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (AMDGPU, DrmClient("amdgpu", "0000:03:00.0", "33", 512 << 20)),
        (XE, DrmClient("xe", "0000:04:00.0", "7", (2 << 30) + (1 << 20))),
        (XE.replace("vram", "local"), DrmClient("xe", "0000:04:00.0", "7", (2 << 30) + (1 << 20))),  # as i915's
        (XE.replace("drm-resident-vram", "drm-active-vram"), DrmClient("xe", "0000:04:00.0", "7", 3 << 30)),
        (XE.replace("2 GiB", "some"), DrmClient("xe", "0000:04:00.0", "7", 1 << 20)),
        (XE.replace("2 GiB", "9" * 5000 + " GiB"), DrmClient("xe", "0000:04:00.0", "7", 1 << 20)),
        ("x drm-driver: foo\ndrm-memory-vram: 5 KiB\n", None),
        (I915_INTEGRATED, None),
        (HEAD, None),
        ("", None),
    ],
)  # fmt: skip
def test_what_is_resident_in_device_memory_counts_once_a_region(text: str, expected: DrmClient | None) -> None:
    assert parse_client(text) == expected
