"""A source tree in the shape of llama.cpp's that builds in a second: its `llama-server` becomes the embedded engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EMBEDDED = Path(sys.executable).parent / "orch-embedded-server"

_CMAKE = """\
cmake_minimum_required(VERSION 3.14)
project(engine C)
include(cmake/build-info.cmake)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
add_library(ggml-tiny SHARED ggml/tiny.c)
add_executable(llama-server server.c)
target_link_libraries(llama-server ggml-tiny)
target_compile_definitions(llama-server PRIVATE BUILD_NUMBER=${BUILD_NUMBER} BUILD_COMMIT="${BUILD_COMMIT}")
add_executable(llama-bench bench.c)
"""

_BUILD_INFO = """\
set(BUILD_NUMBER 0)
set(BUILD_COMMIT "unknown")
execute_process(COMMAND git rev-parse --short HEAD OUTPUT_VARIABLE HEAD OUTPUT_STRIP_TRAILING_WHITESPACE
    WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR} RESULT_VARIABLE RES)
if (RES EQUAL 0)
    set(BUILD_COMMIT ${HEAD})
endif()
"""

_SERVER = """\
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int tiny(void);
int main(int argc, char ** argv) {
    if (argc > 1 && !strcmp(argv[1], "--version")) {
        fprintf(stderr, "version: 0.6.0-dev (build %%d, commit %%s)\\n", BUILD_NUMBER, BUILD_COMMIT);
        return tiny();
    }
    argv[0] = "%s";
    execv(argv[0], argv);
    return 127;
}
"""


def write_source(directory: Path, *, server: Path = EMBEDDED) -> Path:
    """Write the tree.

    :param server: the program that `llama-server` turns into
    """
    files = {
        "CMakeLists.txt": _CMAKE,
        "cmake/build-info.cmake": _BUILD_INFO,
        "common/CMakeLists.txt": "# here other trees have a library\n",
        "ggml/CMakeLists.txt": "# here too\n",
        "ggml/tiny.c": "int tiny(void) { return 0; }\n",
        "server.c": _SERVER % server,
        "bench.c": "int main(void) { return 0; }\n",
    }
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return directory


def git(directory: Path, *words: str) -> str:
    """Run git as a person in a repository of theirs."""
    env = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    done = subprocess.run(["git", *words], cwd=directory, env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit_all(directory: Path, message: str) -> str:
    if not (directory / ".git").exists():
        git(directory, "init", "--quiet", "--initial-branch=main")
        git(directory, "config", "uploadpack.allowFilter", "true")
        git(directory, "config", "uploadpack.allowAnySHA1InWant", "true")

    git(directory, "add", "--all")
    git(directory, "commit", "--quiet", "--message", message)
    return git(directory, "rev-parse", "HEAD")
