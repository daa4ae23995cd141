"""Reading what ninja and compilers print."""

from __future__ import annotations

import pytest

from orchestrator.engines.build.output import exhausted_resource, first_error, progress, step_of

FAILED_COMPILE = """\
$ ninja -C tree
[1/4] Building CXX object a.cpp.o
[2/4] Building CXX object error-handling.cpp.o
FAILED: b.cpp.o
/usr/bin/c++ -Werror=format -o b.cpp.o -c b.cpp
b.cpp: In function 'int main()':
b.cpp:3:5: error: 'foo' was not declared in this scope
    3 |     foo();
      |     ^~~
[3/4] Building CXX object c.cpp.o
c.cpp:9:1: error: another one
ninja: build stopped: subcommand failed.
"""

KILLED = """\
[7/9] Building CUDA object x.cu.o
FAILED: x.cu.o
c++: fatal error: Killed signal terminated program cc1plus
compilation terminated.
ninja: build stopped: subcommand failed.
"""

FULL = """\
FAILED: lib.so
/usr/bin/ld: final link failed: No space left on device
collect2: error: ld returned 1 exit status
"""

CMAKE = """\
-- Detecting CXX compiler ABI info - failed
CMake Error at CMakeLists.txt:1 (find_package):
  Could NOT find CUDAToolkit

-- Configuring incomplete, errors occurred!
"""


def test_steps_are_counted_as_ninja_prints_them() -> None:
    assert step_of("[12/228] Building CXX object x\n") == (12, 228)
    assert step_of("note: [12/228] is not at the beginning") is None


def test_the_estimate_comes_from_the_steps_so_far() -> None:
    assert progress(10, 100, 20.0).left_s == pytest.approx(180.0)
    assert progress(1, 100, 20.0).left_s is None


def test_the_first_error_is_shown_with_what_failed() -> None:
    lines = first_error(FAILED_COMPILE.splitlines())
    assert lines[0] == "FAILED: b.cpp.o"
    assert lines[1] == "b.cpp:3:5: error: 'foo' was not declared in this scope"
    assert not any("another one" in line for line in lines)


def test_an_error_of_cmake_is_shown() -> None:
    lines = first_error(CMAKE.splitlines())
    assert lines[:2] == (
        "CMake Error at CMakeLists.txt:1 (find_package):",
        "  Could NOT find CUDAToolkit",
    )


def test_output_without_an_error_has_none() -> None:
    assert first_error(["[1/2] Building CXX object error.cpp.o", "done"]) == ()


@pytest.mark.parametrize(("text", "what"), [(KILLED, "memory"), (FULL, "disk"), (FAILED_COMPILE, None)])
def test_what_ran_out_is_recognised(text: str, what: str | None) -> None:
    assert exhausted_resource(text) == what
