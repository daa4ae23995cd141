from __future__ import annotations

import re
from dataclasses import replace

import pytest

from orchestrator.adapters.config.config_file import KEYS_CREDENTIAL
from orchestrator.adapters.systemd.machine import read_template
from orchestrator.core import exit_codes
from orchestrator.core.config import Config, DaemonConfig, GatewayConfig
from orchestrator.core.setup.service_unit import (
    CREDENTIAL,
    UNKILLABLE_ALLOWANCE_S,
    WATCH,
    Flavour,
    UnitFacts,
    command_word,
    is_ours,
    is_program,
    listen_address,
    program_of,
    quote_word,
    render,
    stop_timeout_s,
)
from tests.support import ROOT

DOCUMENT = ROOT / "docs" / "service.md"
FLAVOURS: tuple[Flavour, ...] = ("user", "system")


def facts(flavour: Flavour = "user", systemd: int = 252, config: Config | None = None, **more: object) -> UnitFacts:
    return UnitFacts(flavour, ("/opt/orch/bin/orch",), systemd, config or Config(), **more)  # type: ignore[arg-type]


def service(of: UnitFacts) -> str:
    return render(read_template(of.flavour, "orch.service"), of)


def options(text: str) -> dict[str, list[str]]:
    """Name to its values, in the order of the file."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)

    return found


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_daemon_that_hangs_or_dies_is_ended_and_started_again(flavour: Flavour) -> None:
    found = options(service(facts(flavour)))
    assert int(found["WatchdogSec"][0]) > 0 and "WatchdogSignal" not in found  # SIGABRT, which leaves the stacks
    assert found["Restart"] == ["on-failure"]


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize(
    ("systemd", "there", "absent"), [(252, "RestartSec=5", "RestartSteps"), (254, "RestartSteps=5", "RestartSec=5")]
)
def test_an_option_is_there_only_where_this_systemd_has_it(
    flavour: Flavour, systemd: int, there: str, absent: str
) -> None:
    text = service(facts(flavour, systemd))
    assert there in text
    assert absent not in text


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("systemd", [252, 255])
def test_nothing_of_the_template_is_left(flavour: Flavour, systemd: int) -> None:
    for name in ("orch.service", "orch.socket"):
        text = render(read_template(flavour, name), facts(flavour, systemd, profile="mine", socket=True))
        assert not re.search(r"@[a-z_]+@|^\{", text, re.MULTILINE), text


def test_a_stop_may_take_as_long_as_the_configuration_lets_it() -> None:
    config = Config(daemon=DaemonConfig(drain_s=600.5, stop_grace_s=30.0))
    assert stop_timeout_s(config) == 631 + 10 + 15
    assert options(service(facts(config=config)))["TimeoutStopSec"] == ["656"]


def test_what_cannot_be_killed_is_waited_for_as_long_as_the_daemon_does() -> None:
    from orchestrator.daemon.process import daemon as lifetime

    assert lifetime.UNKILLABLE_ALLOWANCE_S == UNKILLABLE_ALLOWANCE_S


def test_the_daemons_own_refusals_are_final() -> None:
    assert {exit_codes.USAGE, exit_codes.ALREADY_RUNNING} == set(exit_codes.FINAL)
    assert options(service(facts()))["RestartPreventExitStatus"] == ["2 5"]


def test_the_credential_is_called_as_the_daemon_calls_it() -> None:
    assert CREDENTIAL == KEYS_CREDENTIAL
    text = service(facts("system", key_file="/etc/orch/orch-api-keys"))
    assert options(text)["LoadCredential"] == ["orch-api-keys:/etc/orch/orch-api-keys"]
    assert "LoadCredential" not in options(service(facts("system")))


def test_the_user_flavour_moves_no_directory() -> None:
    assert not {name for name in options(service(facts("user"))) if name.endswith("Directory")}


def test_profiles_beside_the_first_are_loaded_at_each_start() -> None:
    text = service(facts(profile="chat", preload=("embed", "code")))
    assert options(text)["Environment"] == ["ORCH_DEFAULT_PROFILE=chat", "ORCH_PRELOAD=embed,code"]


def test_a_profile_and_the_users_variables_are_carried() -> None:
    text = service(facts(profile="mine", environment={"ORCH_HOME": "/a b/100%"}))
    assert options(text)["Environment"] == ['"ORCH_HOME=/a b/100%%"', "ORCH_DEFAULT_PROFILE=mine"]


@pytest.mark.parametrize(
    ("host", "closed"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)]
)
def test_only_a_loopback_gateway_is_cut_off_from_the_network(host: str, closed: bool) -> None:
    config = Config(gateway=GatewayConfig(host=host))
    found = options(service(facts("system", config=config)))
    assert ("IPAddressDeny" in found) == closed
    assert ("network-online.target" in found["After"]) != closed


@pytest.mark.parametrize(("reads", "value"), [(False, "yes"), (True, "read-only")])
def test_homes_are_seen_only_where_something_of_ours_lies_there(reads: bool, value: str) -> None:
    assert options(service(facts("system", reads_homes=reads)))["ProtectHome"] == [value]


@pytest.mark.parametrize(
    ("host", "address"), [("127.0.0.1", "127.0.0.1:8080"), ("::1", "[::1]:8080"), ("LocalHost.", "127.0.0.1:8080")]
)
def test_the_socket_listens_where_the_gateway_would(host: str, address: str) -> None:
    config = Config(gateway=GatewayConfig(host=host))
    assert listen_address(config) == address
    text = render(read_template("user", "orch.socket"), facts(config=config))
    assert options(text)["ListenStream"] == [address]
    assert options(text)["FileDescriptorName"] == ["gateway"]


def test_an_edit_of_a_person_is_noticed_and_our_own_older_text_is_not_one() -> None:
    text = service(facts())
    assert is_ours(text)
    assert is_ours(service(facts(profile="another")))
    assert not is_ours(text.replace("WatchdogSec=30", "WatchdogSec=90"))
    assert not is_ours(text + "# mine\n")
    assert not is_ours("[Service]\nExecStart=/bin/true\n")


@pytest.mark.parametrize(
    ("text", "in_unit"),
    [
        ("/opt/orch/bin/orch", "/opt/orch/bin/orch"),
        ("/home/a b/orch", '"/home/a b/orch"'),
        ('/x"y\\z', '"/x\\"y\\\\z"'),
        ("/100%/$HOME", '"/100%%/$$HOME"'),
    ],
)
def test_a_word_of_a_command_line_means_itself(text: str, in_unit: str) -> None:
    assert command_word(text) == in_unit


@pytest.mark.parametrize("program", ["/opt/orch/bin/orch", "/opt/my %h orch/bin/orch", "/opt/do$lar/orch"])
def test_the_program_of_a_unit_is_the_one_that_it_was_made_for(program: str) -> None:
    text = service(replace(facts("system"), orch=(program,)))
    assert program_of(text) == program
    assert "$$" not in text  # systemd looks for the program by the first word as it is
    assert program_of("[Service]\n") is None


def test_what_systemd_takes_for_no_program_is_known() -> None:
    assert is_program("/opt/my %h $orch/bin/ö")
    assert not [path for path in ('/a"b', "/a'b", "/a\\b", "/a\nb") if is_program(path)]


def test_a_value_keeps_its_dollars() -> None:
    assert quote_word("A=$HOME") == '"A=$HOME"'


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("name", ["orch.service", "orch.socket", "orch-watch.service", "orch-watch.timer"])
def test_every_option_has_its_reason_in_the_documentation(flavour: Flavour, name: str) -> None:
    explained = set(re.findall(r"`([A-Z][A-Za-z]+)", DOCUMENT.read_text()))
    used = set(re.findall(r"^(?:\{\S+\} )?([A-Z][A-Za-z]+)=", read_template(flavour, name), re.MULTILINE))
    assert used - explained - {"Description", "Documentation", "ConditionPathExists"} == set()


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_no_option_hides_the_gpu(flavour: Flavour) -> None:
    broken = {"PrivateDevices", "MemoryDenyWriteExecute", "ProcSubset", "PrivateUsers", "PrivateNetwork"}
    assert not broken & set(options(service(facts(flavour))))
    assert "~@resources" not in service(facts(flavour))


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_watch_runs_this_installation_and_reaches_the_network_and_the_gpu(flavour: Flavour) -> None:
    text = render(read_template(flavour, WATCH), facts(flavour))
    assert "ExecStart=/opt/orch/bin/orch engines watch\n" in text
    broken = {"PrivateDevices", "MemoryDenyWriteExecute", "PrivateUsers", "PrivateNetwork", "IPAddressDeny"}
    assert not broken & set(options(text))
    # Commands of the service's user find its directories only where systemd gives none.
    assert "StateDirectory" not in options(text)
