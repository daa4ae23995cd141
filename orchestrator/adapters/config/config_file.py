"""Reads `orch.toml`; a file that is not there means the defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping

from orchestrator.adapters.config.text_file import read_text
from orchestrator.adapters.config.toml_lines import line_finder, parse_toml
from orchestrator.adapters.paths import SERVICE_DIRECTORIES, Paths, is_service_user
from orchestrator.core.config import Config, LoadedConfig, read_config
from orchestrator.core.problems import Problems, ProblemsError


def load_config(paths: Paths, environment: Mapping[str, str] | None = None) -> Config:
    """Load the configuration in force.

    :param environment: by default this process's
    :raises ProblemsError: with everything that is wrong with the file and the environment
    """
    return load_with_origins(paths, environment).config


def load_with_origins(paths: Paths, environment: Mapping[str, str] | None = None) -> LoadedConfig:
    """Load the configuration with the origin of each value; otherwise as `load_config`."""
    environment = os.environ if environment is None else environment
    in_file, in_environment = Problems(paths.config_file), Problems("environment")
    document: Mapping[str, object] | None = {}
    if _exists(paths.config_file):
        text = read_text(paths.config_file)
        document = parse_toml(text, in_file)
        in_file.line_of = line_finder(text)

    loaded = read_config(
        document or {},
        environment,
        in_file,
        in_environment,
        lambda path: _absolute(path, paths, environment),
        _credential_path(environment),
    )
    found = (*in_file.found, *in_environment.found)
    if found:
        count = "a problem" if len(found) == 1 else f"{len(found)} problems"
        raise ProblemsError(f"the configuration has {count}", found, hint=f"edit {paths.config_file}")

    return loaded


def _exists(path: str) -> bool:
    """Return whether a file is there, or may be: the defaults must not take the place of what somebody has written."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True

    return True


CREDENTIALS = "${CREDENTIALS_DIRECTORY}"
"""At the begin of a path: the directory of what `LoadCredential=` names (systemd.exec(5))."""

KEYS_CREDENTIAL = "orch-api-keys"
"""The credential that is `gateway.api_key_file` when the file names none."""


def _credential_path(environment: Mapping[str, str]) -> str:
    """Return the path of the keys that the service manager handed over; empty for none."""
    directory = environment.get("CREDENTIALS_DIRECTORY")
    if not directory and is_service_user():  # outside of the service: where systemd takes it from
        directory = SERVICE_DIRECTORIES["CONFIGURATION_DIRECTORY"]

    path = os.path.join(directory, KEYS_CREDENTIAL) if directory else ""
    return path if path and os.path.exists(path) else ""


def _absolute(path: str, paths: Paths, environment: Mapping[str, str]) -> str:
    if path == CREDENTIALS or path.startswith(CREDENTIALS + "/"):
        # Left as it is where there is none: `orch config show` runs outside the service, and shall not fail there.
        directory = environment.get("CREDENTIALS_DIRECTORY")
        return directory + path.removeprefix(CREDENTIALS) if directory else path

    return os.path.normpath(os.path.join(paths.config, os.path.expanduser(path)))
