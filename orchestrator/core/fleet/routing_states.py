"""The routing view: what the gateway goes by. Pure; `routing.py` derives it.

For each profile, and for requests without a known model name, which go to the focus, exactly one of three holds: a
request can be sent, it is refused, or it waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.core.fleet.model_figures import Model


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a ready instance answers.

    :param instance: id of the instance; requests are counted under it until they end
    :param api_key: the key that the engine wants; clients never see it
    :param build: which build of the engine it is
    :param runs: differs once something else runs there: another text of the profile, rung, model file or program
    :param max_in_flight: requests that it is given at a time; 0 for any number
    """

    instance: str
    profile: str
    engine: str
    host: str
    port: int
    api_key: str | None
    build: str | None = None
    runs: str = ""
    max_in_flight: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing is ready and nothing is expected: what a client is told.

    :param profile: the profile that it is about; clients that name another one may still be helped
    :param permanent: the same start would fail the same way: asking again is in vain until a person changes something
    """

    message: str
    code: str
    retry_after_s: int | None
    profile: str | None = None
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class ResidentRoute:
    """Where requests for one resident go: to an endpoint, nowhere (`refusal`), or neither, and then they wait.

    :param progress: what a held client is told, `loading demo`
    :param asleep: the profile, where it was unloaded: the next request for it loads it again
    """

    serving: Endpoint | None
    refusal: Refusal | None
    progress: str
    asleep: str | None = None


@dataclass(frozen=True, slots=True)
class RoutingView:
    """What the gateway goes by, replaced whole at each change. The four fields after `generation` are of the focus.

    :param generation: grows by one with each change
    :param progress: what a held client is told, `loading demo`
    :param on_request: clients that name a profile which does not serve wait until it does
    :param unavailable: profiles that did not start a moment ago, and why
    :param fallen: the newest instances that ended by a failure of their own, not because somebody wanted them gone
    :param repaired: profiles that failed and have changed since: they may be started for who asks for them
    :param asleep: the profile that was unloaded because nobody used it: who asks for it, or names none, waits for it
    :param others: the residents beside the focus, by profile
    """

    generation: int
    serving: Endpoint | None
    refusal: Refusal | None
    progress: str
    models: tuple[Model, ...]
    on_request: bool = False
    unavailable: Mapping[str, Refusal] = field(default_factory=dict)
    fallen: tuple[str, ...] = ()
    repaired: frozenset[str] = frozenset()
    asleep: str | None = None
    others: Mapping[str, ResidentRoute] = field(default_factory=dict)

    @property
    def instances(self) -> frozenset[str]:
        """The instances that requests are sent to now."""
        routes = (self.serving, *(other.serving for other in self.others.values()))
        return frozenset(each.instance for each in routes if each is not None)

    @property
    def loaded(self) -> tuple[str, ...]:
        """The profiles that requests are sent to now, that of the focus first."""
        routes = (self.serving, *(other.serving for other in self.others.values()))
        return tuple(each.profile for each in routes if each is not None)

    def endpoint_for(self, profile: str | None) -> Endpoint | None:
        """Return where a request for this profile can be sent now, None for nowhere; no profile takes the focus."""
        serving = self.serving  # each request comes by here: nothing is built
        if serving is not None and (profile is None or profile == serving.profile):
            return serving

        other = self.others.get(profile) if profile is not None else None
        return other.serving if other is not None else None

    def route_for(self, profile: str | None) -> ResidentRoute:
        """Return how requests for a profile go; one that is not resident goes by the focus."""
        other = self.others.get(profile) if profile is not None else None
        return other or ResidentRoute(self.serving, self.refusal, self.progress, self.asleep)

    def progress_for(self, profile: str | None) -> str:
        """Return what a client that waits for this profile is told."""
        return self.route_for(profile).progress

    def serves(self, profile: str | None) -> bool:
        """Return whether a request for this profile can be sent now; None takes the focus."""
        return self.endpoint_for(profile) is not None

    def refuses(self, profile: str | None) -> Refusal | None:
        """Return why a request for this profile need not wait; None when it may."""
        other = self.others.get(profile) if profile is not None else None
        if profile is not None and other is not None:
            refused = self.unavailable.get(profile) if other.asleep is not None else None
            return refused or other.refusal

        if profile is None:
            return self.refusal

        if not self.on_request:
            # What is in focus was unloaded, or failed: that is no answer to who asks for something else.
            about = self.asleep if self.refusal is None else self.refusal.profile
            if about not in (None, profile):
                text = f"`{profile}` is not loaded; `orch load` or `orch switch` loads it"
                return Refusal(text, "not_running", None)

            return self.refusal

        if profile in self.unavailable:
            return self.unavailable[profile]

        # Nothing runs, or something else failed: what the client asks for can be started for it.
        helped = (
            self.refusal is None
            or self.refusal.code == "not_running"
            or self.refusal.profile not in (None, profile)
            or self.refusal.profile in self.repaired
        )
        return None if helped else self.refusal

    def decided(self, profile: str | None) -> bool:
        """Return whether a request for this profile has nothing to wait for: it can be sent, or it is refused."""
        if self.endpoint_for(profile) is not None or self.refuses(profile) is not None:
            return True

        return self.serving is not None and not self.on_request and profile not in self.others
