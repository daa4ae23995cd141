"""How the gateway is set up."""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestrator.adapters.http1 import HttpLimits
from orchestrator.core.addresses import is_loopback
from orchestrator.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """The address, who may use it, and what waiting costs.

    :param api_keys: any of them opens every route; without one only a loopback address is accepted
    :param allowed_hosts: names beside the machine's own that clients may send as Host
    :param max_queued: requests that may wait for an instance
    :param comment_after_s: a streaming client that has waited so long gets its first comment, and with it a status 200
    :param recover_s: how long to wait for the daemon to notice that an engine is gone
    :param replay_bytes: a request with a larger body is not sent again when its engine dies
    :param quarantine_s: how long a request that kills engines is refused
    :param trial_s: how long a suspect keeps an engine for itself, at most
    :raises UsageError: when the address is open to others and no key is set
    """

    host: str = "127.0.0.1"
    port: int = 8080
    api_keys: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    max_queued: int = 256
    hold_timeout_s: float = 900.0
    comment_after_s: float = 1.0
    comment_every_s: float = 5.0
    recover_s: float = 5.0
    replay_bytes: int = 16 << 20
    quarantine_s: float = 600.0
    trial_s: float = 10.0
    limits: HttpLimits = field(default_factory=HttpLimits)

    def __post_init__(self) -> None:
        if not self.api_keys and not is_loopback(self.host):
            raise UsageError(
                f"the gateway would listen on `{self.host}` without an API key",
                details=("without a key, allowed: 127.0.0.1, ::1, localhost",),
                hint="set gateway.api_keys, or listen on 127.0.0.1",
            )

        if any(not key.strip() for key in self.api_keys):
            raise UsageError("an API key of the gateway is empty")
