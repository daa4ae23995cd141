from __future__ import annotations

import pytest

from orchestrator.core import errors
from orchestrator.core.errors import AlreadyRunningError, NotRunningError, OrchError, TimedOutError, UsageError
from orchestrator.core.exit_codes import ERRORS, error_of, exit_code
from orchestrator.core.problems import ProblemsError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OrchError("failed"), 1),
        (UsageError("wrong"), 2),
        (ProblemsError("wrong", ()), 2),
        (NotRunningError("nothing runs"), 3),
        (TimedOutError("too late"), 4),
        (AlreadyRunningError("another runs"), 5),
    ],
)
def test_every_error_has_its_exit_code(error: OrchError, code: int) -> None:
    assert exit_code(error) == code


def test_no_class_of_errors_was_forgotten() -> None:
    classes = {each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, OrchError)}
    assert classes == {kind for kind, _ in ERRORS}


@pytest.mark.parametrize("kind", [kind for kind, _ in ERRORS])
def test_an_exit_code_leads_back_to_its_error(kind: type[OrchError]) -> None:
    assert error_of(exit_code(kind("it failed"))) is kind


@pytest.mark.parametrize("code", [99, 0, None, "2"])
def test_a_code_that_is_not_ours_stands_for_any_failure(code: object) -> None:
    assert error_of(code) is OrchError
