"""A script's commands as a shell would see them, without running anything."""

from __future__ import annotations

import pytest

from orchestrator.core.importing.words.shell_words import ShellReader
from orchestrator.core.importing.words.unresolved import readable
from orchestrator.core.importing.words.word_reader import split_words


def commands(text: str, **variables: str) -> list[list[str]]:
    return [[readable(word.text) for word in each.words] for each in ShellReader(dict(variables)).read(text)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("run -a 'b c' \"d e\"", ["run", "-a", "b c", "d e"]),
        ("run \\\n  -a \\\n  b", ["run", "-a", "b"]),
        ("run -a\n  -b c\n", ["run", "-a", "-b", "c"]),
        ("run -a `\n -b", ["run", "-a", "-b"]),
        ("run -a ^\r\n -b", ["run", "-a", "-b"]),
        ("$ run -a", ["run", "-a"]),
        ("PS C:\\x> run -a", ["run", "-a"]),
        ("run -a # not this", ["run", "-a"]),
        ("run 'blk\\.[0-9]=CPU' --x", ["run", "blk\\.[0-9]=CPU", "--x"]),
        ('C:\\bin\\server.exe -m "C:\\my models\\a.gguf"', ["C:\\bin\\server.exe", "-m", "C:\\my models\\a.gguf"]),
        ("run -j '{\"a\": 1}'", ["run", "-j", '{"a": 1}']),
        ("run -a > log.txt 2>&1 &", ["run", "-a"]),
        ("run -e ''", ["run", "-e", ""]),
    ],
)
def test_a_line_is_split_as_its_shell_splits_it(text: str, words: list[str]) -> None:
    assert commands(text) == [words]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A=x\nrun $A", ["run", "x"]),
        ("A='x y'\nrun $A", ["run", "x", "y"]),
        ("A='x y'\nrun \"$A\"", ["run", "x y"]),
        ("run ${A:-4096}", ["run", "4096"]),
        ("A=1\nrun ${A:-4096}", ["run", "1"]),
        ("run ${A:-${B:-7}}", ["run", "7"]),
        ("run $((32 * 1024))", ["run", "32768"]),
        ("N=2\nrun $((N*(3+1)-1))", ["run", "7"]),
        ("ARGS=(-a 'b c')\nARGS+=(-d)\nrun \"${ARGS[@]}\" -e", ["run", "-a", "b c", "-d", "-e"]),
        ('run "$@" -a', ["run", "-a"]),
        ("F=/m/Qwen.gguf\nrun ${F##*/} ${F%.gguf}", ["run", "Qwen.gguf", "/m/Qwen"]),
        ("set MODEL=C:\\a.gguf\nrun -m %MODEL%", ["run", "-m", "C:\\a.gguf"]),
        ("run $UNKNOWN $(date)", ["run", "${UNKNOWN}", "${date}"]),
        ("if [ -f x ]; then\n A=1\nfi\nrun $A", ["run", "1"]),
        ("run '$A'", ["run", "$A"]),
        ('A=${A:-}\nrun "$A"', ["run", "${A:-}"]),
        ("A=1\nA=$2\nrun $A", ["run", "1"]),
        ("A=$(nproc)\nrun $A", ["run", "8"]),
        ('D=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)\nrun $D/m', ["run", "/src/m"]),
        ('run $([ "$X" = 1 ] && echo "--jinja -b 5" || true)', ["run", "--jinja", "-b", "5"]),
        ('f() {\n  run -m "$1" "${@:2}"\n}\nf a.gguf', ["run", "-m", "a.gguf"]),
        ("f() {\n  f; f; f; f; f; f; f; f\n  run 1\n}\nf; f; f; f; f; f; f; f", ["run", "1"]),
        ("function f { run \"$@\"; }\nf -m 'a b'", ["run", "-m", "a b"]),
        ("f() {\n  run $1\n}", ["run", "${1}"]),
        ('f() {\n  local a=$1; shift\n  run $a -- "$@" ${10}\n}\nf 1 2 3', ["run", "1", "--", "2", "3", "${10}"]),
        ("A=(x y z)\nI=1\nrun ${A[$I]} ${A[-1]} ${A[$J]}", ["run", "y", "${A}", "${A}"]),
        ('declare -A M=([a]=x [b]="y z")\nrun "${M[b]}"', ["run", "y z"]),
        ("$l = @('-a')\n$l += @('-b', '1')\n$l += '-c', '2'\n& run @l", ["run", "-a", "-b", "1", "-c", "2"]),
        ("cat <<EOF\nUsage: it's\n  run --model PATH\nEOF\nrun 1", ["run", "1"]),
        ("bash <<'EOF'\nrun 1\nEOF", ["run", "1"]),
        ('@echo off\nset ARGS=-a 1 ^\n  -b "c d"\nrun %ARGS% --e', ["run", "-a", "1", "-b", "c d", "--e"]),
        ('@echo off\nif "%C%"=="" set C=7\nset "C=%~2"\nrun !C! -e', ["run", "7", "-e"]),
        ("$x = 'a b'\nrun $x", ["run", "a", "b"]),
        ("param(\n  [int]$n = 7,\n  [string]$k = 'q8'\n)\nrun $n $k", ["run", "7", "q8"]),
        ("$l = @('-a', \"b c\", # no\n  '-d','1')\n& run @l -e", ["run", "-a", "b c", "-d", "1", "-e"]),
        ("$p = Join-Path 'C:\\x' 'run.exe'\n& $p -a", ["C:\\x\\run.exe", "-a"]),
    ],
)
def test_variables_have_the_values_that_the_script_gives(text: str, words: list[str]) -> None:
    known = {"NUMBER_OF_PROCESSORS": "8", "BASH_SOURCE": "/src/bin/x.sh"}
    assert commands(text, **known)[-1] == words


def test_words_have_their_lines() -> None:
    [command] = ShellReader().read("\nrun \\\n  -a 1 \\\n  -b\n")
    assert [(word.text, word.line) for word in command.words] == [("run", 2), ("-a", 3), ("1", 3), ("-b", 4)]


def test_without_a_shell_a_dollar_is_a_character() -> None:
    assert [word.text for word in split_words("run $A; 'b c' | d")] == ["run", "$A;", "b c", "|", "d"]
