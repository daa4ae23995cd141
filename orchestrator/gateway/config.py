"""The options of the gateway: the configuration that people write, and what the daemon adds."""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestrator.adapters.config.key_file import ApiKey
from orchestrator.adapters.http1 import HttpLimits
from orchestrator.core.addresses import is_loopback
from orchestrator.core.config import ANY_ORIGIN, GatewayConfig
from orchestrator.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class GatewayOptions(GatewayConfig):
    """The table `gateway` of `orch.toml`, with the keys that were read and the times that nobody configures.

    :param api_keys: any of them opens every route; without one only a loopback address is accepted
    :param silence_s: a stream that its engine has said nothing on for so long gets a comment, and with it a status 200
    :param comment_after_s: a streaming client that has waited so long gets its first comment, and with it a status 200
    :param recover_s: how long to wait for the daemon to notice that an engine is gone
    :param trial_s: how long a suspect keeps an engine for itself, at most
    :raises UsageError: when the address, or every page, is open to others and no key is set
    """

    api_keys: tuple[ApiKey, ...] = ()
    silence_s: float = 2.0
    comment_after_s: float = 1.0
    comment_every_s: float = 5.0
    recover_s: float = 5.0
    trial_s: float = 10.0
    limits: HttpLimits = field(default_factory=HttpLimits)

    def __post_init__(self) -> None:
        if not self.api_keys and not is_loopback(self.host):
            raise UsageError(
                f"the gateway would listen on `{self.host}` without an API key",
                details=("without a key, allowed: 127.0.0.1, ::1, localhost",),
                hint="set gateway.api_keys, or listen on 127.0.0.1",
            )

        if ANY_ORIGIN in self.allowed_origins and not self.api_keys:
            raise UsageError(
                "every page would use the gateway without an API key",
                details=("gateway.allowed_origins: without a key, `*` is not allowed",),
                hint="name the origins, or set gateway.api_key_file",
            )

        if any(not each.key.strip() for each in self.api_keys):
            raise UsageError("an API key of the gateway is empty")

    @property
    def replay_bytes(self) -> int:
        """A request with a larger body is not sent again when its engine dies."""
        return self.replay_max_mib << 20
