"""Loads and unloads models for clients of the gateway, where the configuration lets them."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.core.errors import NotRunningError, OrchError
from orchestrator.daemon.control.client_logs import ClientLogs
from orchestrator.daemon.control.loading import LoadingActions
from orchestrator.daemon.control.residents import ordered, shown_target
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.residency.demand import told
from orchestrator.daemon.telemetry.ledger import RequestLedger
from orchestrator.gateway.contract import Finished
from orchestrator.gateway.errors import GatewayError
from orchestrator.gateway.manage.contract import LogView


class ClientRequests:
    """What the gateway's clients may ask for.

    :param logs: what they may read of logs
    :param allowed: whether clients decide what is loaded (`gateway.switch_on_request`)
    """

    def __init__(
        self, owner: Owner, loading: LoadingActions, ledger: RequestLedger, logs: ClientLogs, *, allowed: bool
    ) -> None:
        self._logs = logs
        self._owner = owner
        self._loading = loading
        self._ledger = ledger
        self._allowed = allowed

    async def load(self, profile: str) -> bool:
        """Have a profile loaded beside what runs; False where it is loaded already.

        :raises GatewayError: when clients may not, or it cannot be started as it is written
        """
        check_allowed(self._allowed)
        try:
            answer = await self._loading.load(profile, None)
        except OrchError as error:
            raise GatewayError("load_failed", told(error), param="model", permanent=True) from error

        return not answer["loaded"]

    async def unload(self, profile: str | None) -> list[str]:
        """End a profile, or all; the next request for it loads it again. Return those that were loaded.

        :raises GatewayError: when clients may not, or it is in the middle of a switch
        """
        check_allowed(self._allowed)
        targets = [shown_target(each) for _, each in ordered(self._owner.fleet)]
        names = [target.profile for target in targets if target is not None] if profile is None else [profile]
        ended: list[str] = []
        for name in names:
            try:
                answer = await self._loading.unload(name)
            except NotRunningError:
                continue
            except OrchError as error:
                raise GatewayError("loading", told(error), retry_after_s=2, param="model") from error

            ended += [name] if not answer["unloaded"] else []

        return ended

    def recent(self) -> Sequence[Finished]:
        """Return the requests that ended last, oldest first."""
        return self._ledger.recent

    def engine_log(self, profile: str | None) -> LogView | None:
        """Return the log of a profile's engine, None where none runs; without a profile that of all engines."""
        return self._logs.engine_log(profile)

    def own_log(self) -> LogView:
        """Return the log of events."""
        return self._logs.own


def check_allowed(allowed: bool) -> None:
    """:raises GatewayError: when clients do not decide what is loaded"""
    if not allowed:
        text = "clients may not load or unload models here (`gateway.switch_on_request = false`); `orch load` does"
        raise GatewayError("loading_not_allowed", text)
