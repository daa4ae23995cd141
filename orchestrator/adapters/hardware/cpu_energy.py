"""The energy of the processors, from RAPL's counters in sysfs. Blocks for microseconds.

Source: Documentation/power/powercap/powercap.rst of the kernel. Intel and AMD both are `intel-rapl:N`, one for each
package. `energy_uj` counts microjoules and begins at 0 again after `max_energy_range_uj`. Since CVE-2020-8694 root
alone may read it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from orchestrator.adapters.sysfs import names_in, read_number, read_text

ROOT = "/sys/class/powercap"
_ZONE = re.compile(r"intel-rapl:\d+")


@dataclass(frozen=True, slots=True)
class PackageEnergy:
    """The counter of one processor package, J.

    :param name: `package-0`
    :param wraps_at_j: where it begins at 0 again
    """

    name: str
    counter_j: float
    wraps_at_j: float


class CpuEnergy:
    """Reads the counters of all packages.

    :ivar packages: their names; empty where the kernel has no RAPL
    """

    def __init__(self, root: str = ROOT) -> None:
        self._root = root
        self._zones = dict(sorted(_find_packages(root).items()))
        self.packages = tuple(self._zones)

    def read(self) -> tuple[PackageEnergy, ...]:
        """Return the counters of the packages that can be read."""
        found = []
        for name, (directory, range_uj) in self._zones.items():
            counter_uj = read_number(directory, "energy_uj")
            if counter_uj is not None and range_uj is not None:
                found.append(PackageEnergy(name, counter_uj / 1e6, range_uj / 1e6))

        return tuple(found)

    def why_unknown(self) -> str | None:
        """Return why nothing is known of the processors' energy, and what to do; None when it is known."""
        if not self._zones:
            return f"the kernel counts no energy of the processors: {self._root} has no intel-rapl (a virtual machine?)"

        if len(self.read()) == len(self._zones):
            return None

        files = os.path.join(self._root, "intel-rapl:*", "energy_uj")
        return (
            f"the processors' energy may be read by root alone; until the next boot, allow it with "
            f"`sudo chmod o+r {files}` (others then see how busy the machine is, CVE-2020-8694)"
        )


def _find_packages(root: str) -> dict[str, tuple[str, int | None]]:
    """Return, for each package by its name, its directory and the range of its counter, which never changes.

    `psys`, the whole platform, would count them twice.
    """
    zones = (os.path.join(root, name) for name in names_in(root) if _ZONE.fullmatch(name))
    packages = {name: zone for zone in zones if (name := read_text(zone, "name")).startswith("package")}
    return {name: (zone, read_number(zone, "max_energy_range_uj")) for name, zone in packages.items()}
