"""Everything that is wrong with `orch.toml`, held against the profiles that it names as well."""

from __future__ import annotations

from orchestrator.adapters.config.config_file import load_with_origins
from orchestrator.adapters.config.profile_files import ProfileStore
from orchestrator.adapters.config.text_file import read_text
from orchestrator.adapters.config.toml_lines import line_finder
from orchestrator.adapters.paths import Paths
from orchestrator.core.problems import Problem, Problems, ProblemsError
from orchestrator.core.residency.table import find_unknown_names


def find_problems(paths: Paths) -> tuple[Problem, ...]:
    """Return all problems of the configuration; empty when it is right.

    :raises UsageError: when its file cannot be read
    """
    try:
        loaded = load_with_origins(paths)
    except ProblemsError as error:
        return error.problems

    if not loaded.config.residency.preload and not loaded.config.residency.exclusive:
        return ()

    problems = Problems(paths.config_file, line_finder(read_text(paths.config_file)))
    find_unknown_names(loaded.values, ProfileStore(paths).names(), problems)
    return tuple(problems.found)
