"""Where in a command the server and its arguments are: behind `sudo`, `numactl`, `docker run`, `sh -c` and the like."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.core.importing.findings import SourceWord
from orchestrator.core.importing.flags.flag_meanings import flag_meanings
from orchestrator.core.importing.words.expansion import Variables
from orchestrator.core.importing.words.shell_words import Command, ReadBeside, ShellReader, no_files
from orchestrator.core.importing.words.unresolved import readable
from orchestrator.core.importing.words.word_reader import split_words

_SERVER = re.compile(
    r"(?!.*\.(?:sh|py|ps1|bat|cmd|service|log|md|json|ya?ml|txt|pid|conf|env|ini|zip|gz)$)"
    r"(?:.*[/\\])?(?:[\w.-]*llama[\w.-]*server[\w.-]*|server|ik[_-]?llama[\w.-]*)(?:\.exe)?",
    re.IGNORECASE,
)
_OTHERS = re.compile(
    r"(?:.*[/\\])?(?:llama-(?:cli|bench|sweep-bench|batched-bench|perplexity|quantize|imatrix|gguf-split|swap|mtmd-cli|run"
    r"|embedding|speculative|fit-params|completion|tokenize|lookup|parallel|retrieval|save-load-state|batched|simple"
    r"|rpc-server|tts|gguf|export-lora|cvector-generator|server\.service)|rpc-server|main|vllm|ollama|whisper[\w-]*|sd(-server)?|curl|wget|echo|printf|cat"
    r"|cp|mv|ls|rm|mkdir|cd|git|cmake|make|pip|uv|python3?|systemctl|journalctl|pkill|pgrep|kill(all)?|ps|grep|test|chmod"
    r"|apt(-get)?|sed|awk|ln|tar|find|which|command|source|read|sleep|hf|huggingface-cli"
    r"|FROM|COPY|ADD|LABEL|WORKDIR|EXPOSE|\[+)"
    r"(?:\.exe|\.py)?",
    re.IGNORECASE,
)
_SHELLS = re.compile(r"(?:.*/)?(?:ba|da|z|a)?sh|(?:cmd|powershell|pwsh)(?:\.exe)?", re.IGNORECASE)
_FORK = re.compile(r"\bik[_-]?llama|ik-llama|/ik[_-]|ik_llama", re.IGNORECASE)
_FORK_FLAGS = frozenset({
    "-fmoe", "--fused-moe", "-no-fmoe", "--no-fused-moe", "-rtr", "--run-time-repack", "-mla", "--mla-use", "-amb",
    "--attention-max-batch", "-khad", "--k-cache-hadamard", "-vhad", "--v-cache-hadamard", "--merge-qkv", "-mqkv",
    "-muge", "--merge-up-gate-experts", "-ger", "-sas", "-ser", "-smgs", "-grt", "-mtp", "-smf16",
    "--parallel-tool-calls",
    "-ptcall",
    "--fit-margin", "--ctx-checkpoints-interval", "--graph-reuse", "-gr",
})  # fmt: skip
_QUOTED_SERVER = re.compile(r"(?:^|[\s/;&=])llama-server(?:\.exe)?\s+-")
_LONGEST_SCRIPT = 65536
_LONGEST_NAME = 1024
"""Characters of a program's path; a longer word is none, and not looked at."""
_CONTAINERS = re.compile(r"(?:.*/)?(?:docker|podman|nerdctl)(?:\.exe)?", re.IGNORECASE)
_BARE_OPTIONS = frozenset({
    "-d", "-i", "-t", "-it", "-ti", "-dit", "-P", "--rm", "--detach", "--interactive", "--tty", "--init",
    "--privileged", "--read-only", "--replace", "--no-healthcheck", "--publish-all", "--oom-kill-disable", "-id",
    "-td", "--quiet", "-q",
})  # fmt: skip


@dataclass(slots=True)
class ServerCommand:
    """One start of a server.

    :param arguments: the words behind the program
    :param environment: variables that it is given, with their lines
    :param mounts: folders of a container, and what they are on the machine
    :param container: it runs in one, so that its paths may be others
    :param options: of the container, as written, but for its variables and folders
    :param wrappers: the words in front of the program that change how it runs
    :param other: what it starts instead of a llama-server; empty where it starts one
    """

    line: int
    program: str
    arguments: list[SourceWord]
    environment: list[tuple[str, str, int]] = field(default_factory=list)
    mounts: list[tuple[str, str]] = field(default_factory=list)
    container: bool = False
    options: list[str] = field(default_factory=list)
    wrappers: list[SourceWord] = field(default_factory=list)
    other: str = ""

    @property
    def engine(self) -> str:
        """The engine that it was written for, from its path, its image or its flags."""
        flags = {word.text for word in self.arguments}
        stages = any(re.match(r"(mtp|ngram-\w+|draft):\w", word.text) for word in self.arguments)
        fork = _FORK.search(readable(self.program)) or flags & _FORK_FLAGS or stages
        return "ik-fork" if fork else "upstream"


def find_servers(command: Command, variables: Variables | None = None) -> list[ServerCommand]:
    """Return the servers that a command starts; none where it is about something else.

    :param variables: what a script behind `sh -c` finds set
    """
    words = command.words
    if words and words[0].text.lower() in ("start-process", "start"):
        words = _started_process(words)

    for at, word in enumerate(words):
        name = word.text if len(word.text) <= _LONGEST_NAME else ""
        if _CONTAINERS.fullmatch(name) and at + 1 < len(words) and words[at + 1].text != "exec":
            found = _read_container(words, at)
            return [_with(found, command)] if found is not None else []

        script = _script_of(words, at) if _SHELLS.fullmatch(name) else None
        if script is not None:
            inner = read_script(script.text, script.line, variables, command.read_beside)
            return [_with(each, command) for each in inner]

        if name == "llama" and at + 1 < len(words) and words[at + 1].text in ("serve", "server"):
            return [_with(ServerCommand(word.line, name, words[at + 2 :], wrappers=words[:at]), command)]

        if _SERVER.fullmatch(readable(name)) and not _OTHERS.fullmatch(name) and not _is_value(words, at):
            if not any(each.text.startswith("-") for each in words[at + 1 :]) and name == "server":
                continue

            return [_with(ServerCommand(word.line, name, words[at + 1 :], wrappers=words[:at]), command)]

        if _OTHERS.fullmatch(name) and at == 0:
            return []

    if words and words[0].text.lower() in ("nssm", "nssm.exe") and words[-2:-1] and words[-2].text == "AppParameters":
        return [ServerCommand(words[0].line, "llama-server", split_words(words[-1].text, words[-1].line))]

    for word in words:  # `tmux new -d 'llama-server ...'`, `ssh host "llama-server ..."`, `alias x='llama-server ...'`
        if _QUOTED_SERVER.search(word.text[:_LONGEST_SCRIPT]):
            text = re.sub(r"^[\w-]+=", "", word.text) if words[0].text == "alias" else word.text
            inner = read_script(text, word.line, variables, command.read_beside)
            return [_with(each, command) for each in inner]

    return _guess_server(words, command)


def _script_of(words: Sequence[SourceWord], at: int) -> SourceWord | None:
    """Return the script of `sh -c SCRIPT`, `powershell -WindowStyle Hidden -Command SCRIPT`, `cmd /c SCRIPT`."""
    for place in range(at + 1, min(at + 8, len(words) - 1)):
        if re.fullmatch(r"-\w*c|-command|/[ck]", words[place].text, re.IGNORECASE):
            rest = words[place + 1 :]
            return rest[0] if len(rest) == 1 or " " in rest[0].text else None

        if re.fullmatch(r".*\.(ps1|sh|bat)", words[place].text):
            return None

    return None


def _started_process(words: Sequence[SourceWord]) -> list[SourceWord]:
    """Return the command line of PowerShell's `Start-Process -FilePath PROGRAM -ArgumentList ARGUMENTS`."""
    names = [word.text.lower() for word in words]
    program = names.index("-filepath") + 1 if "-filepath" in names else 1
    begin = names.index("-argumentlist") + 1 if "-argumentlist" in names else program + 1
    own = ("-nonewwindow", "-wait", "-passthru", "-windowstyle", "-redirectstandardoutput", "-redirectstandarderror")
    end = next((at for at in range(begin, len(words)) if names[at] in own), len(words))
    given = words[begin:end]
    if len(given) == 1 and " " in given[0].text:
        given = split_words(given[0].text, given[0].line)

    return [*words[program : program + 1], *given]


def read_script(
    text: str, line: int, variables: Variables | None = None, read_beside: ReadBeside = no_files
) -> list[ServerCommand]:
    """Return the servers that a script starts, in its order."""
    commands = ShellReader(dict(variables or {}), read_beside=read_beside).read(text, line)
    return [server for command in commands for server in find_servers(command, variables)]


def _with(found: ServerCommand, command: Command) -> ServerCommand:
    found.environment = [*command.environment, *found.environment]
    env = [word for word in found.wrappers if re.fullmatch(r"[A-Za-z_]\w*=.*", word.text, re.DOTALL)]
    found.environment += [(word.text.partition("=")[0], word.text.partition("=")[2], word.line) for word in env]
    found.wrappers = [word for word in found.wrappers if word not in env and word.text not in ("exec", "env", "nohup")]
    return found


def _is_value(words: Sequence[SourceWord], at: int) -> bool:
    """Return whether a word that looks like a server is the argument of something before it (`--name llama-server`)."""
    return at > 0 and words[at - 1].text in ("--name", "--hostname", "--container", "--label", "--filter")


def _guess_server(words: Sequence[SourceWord], command: Command) -> list[ServerCommand]:
    """Return a program that the script does not name, or one under a name of its own, by its flags."""
    flags = [at for at, word in enumerate(words) if word.text.startswith("-")]
    if not flags or flags[0] == 0:
        return []

    known = [word.text for word in words if word.text in flag_meanings()]
    names_model = any(word.text in ("-m", "--model", "-hf", "--hf-repo", "--hf") for word in words)
    if not (names_model and len(known) >= 2) and not (len(known) >= 4 and "\ue000" in words[flags[0] - 1].text):
        return []

    start = flags[0]
    program = words[start - 1]
    start += words[start].text == "--"  # `nix run PACKAGE -- ARGUMENTS`
    if program.text == "run" or any(_OTHERS.fullmatch(word.text[:_LONGEST_NAME]) for word in words[:start]):
        return []

    return [
        _with(
            ServerCommand(program.line, program.text, list(words[start:]), wrappers=list(words[: flags[0] - 1])),
            command,
        )
    ]


def _read_container(words: Sequence[SourceWord], at: int) -> ServerCommand | None:
    """Read `docker run OPTIONS IMAGE ARGUMENTS`."""
    runs = next(
        (place for place in range(at + 1, min(at + 5, len(words))) if words[place].text in ("run", "create")), None
    )
    if runs is None:
        return None

    found = ServerCommand(words[at].line, "", [], container=True, wrappers=list(words[:at]))
    entrypoint = ""
    place = runs + 1
    while place < len(words) and words[place].text.startswith("-"):
        option, equals, value = words[place].text.partition("=")
        if not equals and option not in _BARE_OPTIONS and not re.fullmatch(r"-[vep]\S+", option):
            place += 1
            value = words[place].text if place < len(words) else ""
        elif re.fullmatch(r"-[vep][^-]\S*", option) and not equals:
            option, value = option[:2], option[2:]

        if option in ("-e", "--env"):
            name, _, text = value.partition("=")
            found.environment.append((name, text, words[min(place, len(words) - 1)].line))
        elif option == "--entrypoint":
            entrypoint = value
        elif (mount := read_mount(option, value)) is not None:
            found.mounts.append(mount)
        else:
            found.options.append(f"{option} {value}".strip())

        place += 1

    if place >= len(words):
        return None

    found.program = entrypoint or words[place].text
    image = words[place].text
    enter_image(found, list(words[place + 1 :]), image, entrypoint)
    return found


def read_mount(option: str, value: str) -> tuple[str, str] | None:
    """Return the folder in the container and the one on the machine that an option joins."""
    if option in ("-v", "--volume"):
        windows = re.match(r"([A-Za-z]:[\\/][^:]*):([^:]+)", value)
        host, inside = windows.groups() if windows else (value.split(":") + [""])[:2]
        return (inside, host) if inside else None

    if option == "--mount":
        parts = dict(part.partition("=")[::2] for part in value.split(","))
        inside = parts.get("target") or parts.get("dst") or parts.get("destination") or ""
        host = parts.get("source") or parts.get("src") or ""
        return (inside, host) if inside and host else None

    return None


def enter_image(found: ServerCommand, words: list[SourceWord], image: str, entrypoint: str) -> None:
    """Set the arguments of a server that runs in a container."""
    found.program = f"{entrypoint} {image}".strip()
    if entrypoint and _SHELLS.fullmatch(entrypoint.split()[0]) or (words and _SHELLS.fullmatch(words[0].text)):
        text = next((each for each in words if "\n" in each.text or " " in each.text), None)
        given: Variables = {name: value for name, value, _ in found.environment}
        inner = read_script(text.text, text.line, given) if text is not None else []
        if inner:
            found.arguments = inner[0].arguments
            found.program = f"{inner[0].program} {image}"
            found.environment += inner[0].environment
        else:
            found.other = f"`{readable(image)}` runs a script"

        return

    started = entrypoint.split()[0] if entrypoint else ""
    if started and _OTHERS.fullmatch(started):
        found.other = f"`{readable(started)}` in the container `{readable(image)}`"
        return

    if words and _SERVER.fullmatch(words[0].text) or words and words[0].text in ("--server", "-s") and "full" in image:
        words = words[1:]
    elif words and not words[0].text.startswith("-"):
        found.other = f"`{readable(words[0].text)}` in the container `{readable(image)}`"
    elif not entrypoint and not re.search(r"llama|server|gguf", image, re.IGNORECASE):
        known = sum(word.text in flag_meanings() or word.text in ("-m", "--model", "-hf") for word in words)
        if known < 2:
            found.other = f"the container `{readable(image)}`"

    if re.search(
        r"vllm|sglang|ollama|whisper|diffusion|sd-server|tei|text-embeddings|open-webui|llama-swap|rpc-\w+$",
        image,
        re.IGNORECASE,
    ):
        found.other = f"the container `{readable(image)}`"

    found.arguments = words
