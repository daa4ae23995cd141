from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.adapters.config.config_check import find_problems
from orchestrator.adapters.config.config_file import load_config, load_with_origins
from orchestrator.adapters.paths import Paths, find_paths
from orchestrator.core.addresses import is_loopback
from orchestrator.core.config import Config
from orchestrator.core.errors import UsageError
from orchestrator.core.problems import ProblemsError
from orchestrator.core.profile.profile import NAME_RULE
from orchestrator.core.residency.table import ResidencyConfig


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = find_paths({"ORCH_HOME": str(tmp_path)})
    os.makedirs(paths.config)
    return paths


def write(paths: Paths, text: str) -> None:
    Path(paths.config_file).write_text(text)


def problems_of(paths: Paths, environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ProblemsError) as caught:
        load_config(paths, environment or {})

    return [str(problem).removeprefix(paths.config_file) for problem in caught.value.problems]


def test_without_a_file_the_defaults_hold(paths: Paths) -> None:
    assert load_config(paths, {}) == Config()


def test_a_file_that_may_not_be_looked_for_is_no_missing_file(paths: Paths) -> None:
    os.rmdir(paths.config)
    os.symlink(paths.config, paths.config)  # root may enter any directory, but not this one
    with pytest.raises(UsageError, match="cannot read .*orch.toml"):
        load_config(paths, {})


def test_each_value_is_read_and_knows_where_it_comes_from(paths: Paths) -> None:
    write(
        paths,
        """
        [gateway]
        host = "[::]"
        port = 9000
        api_key_file = "keys"
        allowed_hosts = ["box.lan"]
        hold_timeout_s = 5
        [daemon]
        default_profile = "demo"
        """,
    )
    loaded = load_with_origins(paths, {"ORCH_GATEWAY_PORT": "9001"})
    gateway = loaded.config.gateway
    assert (gateway.host, gateway.port, gateway.allowed_hosts) == ("::", 9001, ("box.lan",))
    assert gateway.api_key_file == os.path.join(paths.config, "keys")
    assert gateway.hold_timeout_s == 5.0
    assert loaded.config.daemon.default_profile == "demo"
    assert loaded.origins["gateway.port"] == "environment"
    assert loaded.origins["gateway.host"] == "file"
    assert loaded.origins["daemon.drain_s"] == "default"


def test_all_problems_are_listed_with_their_lines(paths: Paths) -> None:
    write(paths, "[gatway]\n[gateway]\nprot = 1\nport = 70000\nmax_queued = '1'\n[daemon]\ndefault_profile = '../x'\n")
    assert problems_of(paths, {"ORCH_GATEWAY_PORT": "x"}) == [
        ":1: unknown table `gatway` (did you mean `gateway`?)",
        ":3: unknown key `gateway.prot` (did you mean `port`?)",
        ":4: `gateway.port`: expected 0 to 65535, found 70000",
        ":5: `gateway.max_queued`: expected an integer, found a string (remove the quotes)",
        f":7: `daemon.default_profile`: expected {NAME_RULE}, found `../x`",
        "environment: `ORCH_GATEWAY_PORT`: expected an integer, found a string",
    ]


def test_a_syntax_error_has_its_line(paths: Paths) -> None:
    write(paths, "[gateway]\nport = = 1\n")
    assert problems_of(paths) == [":2: Invalid value at column 8"]


OPEN = [
    "0",
    "0.0.0.0",
    "::",
    "[::]",
    "192.168.1.5",
    "box.lan",
    "localhost.evil.com",
    "127.1",
    "::ffff:0.0.0.0",
    "0x7f.1",
]


@pytest.mark.parametrize("host", OPEN)
def test_an_address_that_others_can_reach_needs_a_key(paths: Paths, host: str) -> None:
    write(paths, f"[gateway]\nhost = '{host}'\n")
    [problem] = problems_of(paths)
    assert problem.startswith(f":2: `gateway.host`: `{host}` can be reached from other machines")
    write(paths, f"[gateway]\nhost = '{host}'\napi_key_file = '/k'\n")
    assert load_config(paths, {}).gateway.api_key_file == "/k"


@pytest.mark.parametrize("host", OPEN)
def test_the_environment_cannot_open_the_gateway_without_a_key_either(paths: Paths, host: str) -> None:
    [problem] = problems_of(paths, {"ORCH_GATEWAY_HOST": host})
    assert problem.startswith("environment: `gateway.host`")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "[::1]", "localhost", "LOCALHOST", "localhost."])
def test_this_machine_alone_needs_no_key(paths: Paths, host: str) -> None:
    assert is_loopback(host)
    write(paths, f"[gateway]\nhost = '{host}'\n")
    assert load_config(paths, {}).gateway.host == host.strip("[]")


def test_an_address_with_the_roots_dot_is_listened_on_as_the_address(paths: Paths) -> None:
    write(paths, "[gateway]\nhost = '127.0.0.1.'\n")
    assert load_config(paths, {}).gateway.host == "127.0.0.1"


@pytest.mark.parametrize("host", ["", " ", "-x", "a b", "http://x", "a,b"])
def test_what_is_no_address_is_refused(paths: Paths, host: str) -> None:
    write(paths, f"[gateway]\nhost = '{host}'\napi_key_file = '/k'\n")
    assert len(problems_of(paths)) == 1


def test_the_units_profile_wins_over_the_files(paths: Paths) -> None:
    write(paths, '[daemon]\ndefault_profile = "demo"\n')
    loaded = load_with_origins(paths, {"ORCH_DEFAULT_PROFILE": "mine"})
    assert loaded.config.daemon.default_profile == "mine"
    assert loaded.origins["daemon.default_profile"] == "environment"


def test_what_the_unit_loads_wins_over_the_files_and_each_name_is_checked(paths: Paths) -> None:
    write(paths, '[residency]\npreload = ["demo"]\n')
    loaded = load_with_origins(paths, {"ORCH_PRELOAD": "embed, code"})
    assert loaded.config.residency.preload == ("embed", "code")
    assert loaded.origins["residency.preload"] == "environment"
    with pytest.raises(ProblemsError) as caught:
        load_with_origins(paths, {"ORCH_PRELOAD": "embed,a b"})

    assert "`residency.preload[1]`: expected" in str(caught.value.details)


def credentials(tmp_path: Path, *names: str) -> dict[str, str]:
    """What a service finds in its environment for which `LoadCredential=` names these."""
    directory = tmp_path / "credentials"
    directory.mkdir()
    for name in names:
        (directory / name).write_text("key\n")

    return {"CREDENTIALS_DIRECTORY": str(directory)}


def test_keys_that_the_service_manager_hands_over_are_used_where_the_file_names_none(
    paths: Paths, tmp_path: Path
) -> None:
    environment = credentials(tmp_path, "orch-api-keys")
    write(paths, "[gateway]\nhost = '0.0.0.0'\n")
    loaded = load_with_origins(paths, environment)
    assert loaded.config.gateway.api_key_file == str(tmp_path / "credentials" / "orch-api-keys")
    assert loaded.origins["gateway.api_key_file"] == "credential"


def test_a_key_file_that_the_configuration_names_wins(paths: Paths, tmp_path: Path) -> None:
    write(paths, "[gateway]\napi_key_file = '/k'\n")
    assert load_config(paths, credentials(tmp_path, "orch-api-keys")).gateway.api_key_file == "/k"


def test_other_credentials_are_no_keys(paths: Paths, tmp_path: Path) -> None:
    assert load_config(paths, credentials(tmp_path, "tls")) == Config()


def test_a_credential_can_be_named_as_a_path(paths: Paths, tmp_path: Path) -> None:
    write(paths, "[gateway]\napi_key_file = '${CREDENTIALS_DIRECTORY}/other'\n")
    environment = credentials(tmp_path, "other")
    assert load_config(paths, environment).gateway.api_key_file == str(tmp_path / "credentials" / "other")


def test_a_credential_s_path_stays_as_it_is_outside_the_service(paths: Paths) -> None:
    write(paths, "[gateway]\nhost = '0.0.0.0'\napi_key_file = '${CREDENTIALS_DIRECTORY}/other'\n")
    assert load_config(paths, {}).gateway.api_key_file == "${CREDENTIALS_DIRECTORY}/other"


def test_when_a_service_is_ready_is_one_of_two_words(paths: Paths) -> None:
    write(paths, "[daemon]\nready_when = 'model'\n")
    assert load_config(paths, {}).daemon.ready_when == "model"
    write(paths, "[daemon]\nready_when = 'modle'\n")
    (problem,) = problems_of(paths)
    assert "`listening`, `model`" in problem


def test_what_stays_loaded_is_read(paths: Paths) -> None:
    write(
        paths,
        """
        [residency]
        policy = "one"
        max = 3
        idle_unload_s = 60
        preload = ["a"]
        exclusive = [["a", "b"], ["b", "c", "d"]]
        """,
    )
    found = load_config(paths, {}).residency
    assert found == ResidencyConfig("one", 3, 60.0, ("a",), (("a", "b"), ("b", "c", "d")))


def test_all_that_is_wrong_with_what_stays_loaded_is_listed_with_its_lines(paths: Paths) -> None:
    write(
        paths,
        "[residency]\n"
        "policy = 'two'\n"
        "max = 1\n"
        "preload = ['a', 'b', 'A!', 'a']\n"
        "exclusive = [\n"
        "  ['a', 'b'],\n"
        "  ['c'],\n"
        "  ['c', 'c'],\n"
        "]\n"
        "keep = 1\n",
    )
    assert problems_of(paths) == [
        ":2: `residency.policy`: expected one of `fit`, `one`, found `two`",
        ":10: unknown key `residency.keep`",
        f":4: `residency.preload[2]`: expected {NAME_RULE}, found `A!`",
        ":4: `residency.preload[3]`: `a` is there twice",
        ":7: `residency.exclusive[1]`: expected at least two profiles in a group, found only `c`",
        ":8: `residency.exclusive[2][1]`: `c` is there twice",
        ":4: `residency.preload[1]`: `b` is never loaded beside `a` (`residency.exclusive[0]`)",
        ":4: `residency.preload`: expected at most 1 (`residency.max = 1`), found 3",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exclusive = ['a']", "`residency.exclusive[0]`: expected an array of strings, found a string"),
        ("exclusive = [['a', 1]]", "`residency.exclusive[0][1]`: expected a string, found an integer"),
        ("exclusive = 'a'", "`residency.exclusive`: expected an array of arrays of strings, found a string"),
        ("exclusive = [[]]", "`residency.exclusive[0]`: expected at least two profiles in a group, found none"),
        (
            "policy = 'one'\npreload = ['a', 'b']",
            '`residency.preload`: expected at most 1 (`residency.policy = "one"`), found 2',
        ),
        ("max = -1", "`residency.max`: expected 0 to 1000, found -1"),
    ],
)
def test_each_mistake_in_what_stays_loaded_is_told(paths: Paths, text: str, message: str) -> None:
    write(paths, "[residency]\n" + text)
    assert [each.partition(": ")[2] for each in problems_of(paths)] == [message]


def test_a_check_lists_the_profiles_that_are_not_there(paths: Paths) -> None:
    write(paths, "[residency]\npreload = ['demo']\nexclusive = [\n  ['demo', 'nobody'],\n  ['deno', 'demo'],\n]\n")
    assert load_config(paths, {}).residency.preload == ("demo",)  # a profile may be written later
    assert [str(each).removeprefix(paths.config_file) for each in find_problems(paths)] == [
        ":4: `residency.exclusive[0][1]`: there is no profile `nobody` (`orch profile list` shows them)",
        ":5: `residency.exclusive[1][0]`: there is no profile `deno` (did you mean `demo`?)",
    ]


def test_a_check_lists_what_is_wrong_with_the_file(paths: Paths) -> None:
    assert find_problems(paths) == ()
    write(paths, "[residency]\nmax = '1'\n[gateway]\nport = -1\n")
    assert [each.line for each in find_problems(paths)] == [2, 4]


def test_origins_are_read_as_browsers_write_them(paths: Paths) -> None:
    allowed = [
        "https://chat.example", "http://localhost:3000", "http://[::1]:8000", "app://obsidian.md", "null",
        "vscode-webview://1a2b-3c", "chrome-extension://abcdefgh",
    ]  # fmt: skip
    write(paths, f"[gateway]\nallowed_origins = {allowed}\n")
    assert load_config(paths, {}).gateway.allowed_origins == tuple(allowed)


@pytest.mark.parametrize(
    "origin",
    ["chat.example", "https://chat.example/", "https://chat.example/x", "HTTPS://chat.example", "https://Chat.example",
     "https://*.example", "https://a, https://b", "https://u@chat.example", "", "None", "https://"],
)  # fmt: skip
def test_what_no_browser_writes_is_no_origin(paths: Paths, origin: str) -> None:
    write(paths, f"[gateway]\nallowed_origins = ['{origin}']\n")
    [problem] = problems_of(paths)
    assert problem.startswith(":2: `gateway.allowed_origins")
    assert f"found `{origin}`" in problem or not origin


def test_an_origin_with_the_port_that_browsers_leave_out_is_told_so(paths: Paths) -> None:
    write(paths, "[gateway]\nallowed_origins = ['https://chat.example:443', 'http://chat.example:443']\n")
    assert problems_of(paths) == [
        ":2: `gateway.allowed_origins`: browsers write `https://chat.example:443` as `https://chat.example`"
    ]


def test_every_page_needs_a_key(paths: Paths) -> None:
    write(paths, "[gateway]\nallowed_origins = ['*']\n")
    [problem] = problems_of(paths)
    assert problem.startswith(":2: `gateway.allowed_origins`: `*` lets every page use the gateway")
    write(paths, "[gateway]\nallowed_origins = ['*']\napi_key_file = '/k'\n")
    assert load_config(paths, {}).gateway.allowed_origins == ("*",)
