"""Open WebUI as its page uses it: the list of models, a chat, the other model, loading and unloading."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator.adapters.process.ports import free_port
from tests.clients.conftest import HELLO
from tests.clients.guide import Guide
from tests.clients.test_libraries import answered, said
from tests.support import Home, until

pytestmark = [pytest.mark.timeout(600), pytest.mark.client("open-webui")]

# Without what is left out of the installation, without questions to the internet, and without log-in.
SETTINGS = {
    "USE_SLIM_DOCKER": "true", "OFFLINE_MODE": "true", "RAG_EMBEDDING_ENGINE": "openai", "AUDIO_STT_ENGINE": "openai",
    "ANONYMIZED_TELEMETRY": "false", "WEBUI_AUTH": "False", "ENABLE_VERSION_UPDATE_CHECK": "false",
}  # fmt: skip
QUESTION = [{"role": "user", "content": "Say hello"}]


class Page:
    """What the page in a browser asks of its server."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.token = ""
        self.token = self.ask("/api/v1/auths/signin", {"email": "", "password": ""})["token"]

    def ask(self, path: str, body: object = None) -> Any:
        headers = {"content-type": "application/json"} | (
            {"authorization": f"Bearer {self.token}"} if self.token else {}
        )
        data = json.dumps(body).encode() if body is not None else None
        with urllib.request.urlopen(
            urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers), timeout=120
        ) as response:
            text = response.read().decode()

        return json.loads(text) if text[:1] in "{[" else text

    def loaded(self) -> dict[str, Any]:
        """Model to what the list says of it."""
        listed = self.ask("/api/models?refresh=true")["data"]
        return {model["id"]: model.get("loaded") for model in listed}


@pytest.fixture
def page(guide: Guide) -> Iterator[Page]:
    port = free_port()
    guide.changes["3000"] = str(port)
    with guide.following("open-webui", {**SETTINGS, "DATA_DIR": str(guide.home / "data")}) as process:

        def ready() -> bool:
            assert process.poll() is None, guide.printed()[-4000:]
            return answered(port, "/health")

        until(ready, "Open WebUI answers", 300)
        yield Page(port)


def test_open_webui_lists_models_chats_streams_switches_and_unloads(page: Page, served: Home) -> None:
    assert {"chat", "code"} <= set(page.loaded())
    for name, text in HELLO.items():
        asked = {"model": name, "messages": QUESTION}
        answer = page.ask("/api/chat/completions", {**asked, "stream": False})
        assert answer["choices"][0]["message"]["content"] == text
        assert said(page.ask("/api/chat/completions", {**asked, "stream": True})) == text

    conversation = [*QUESTION, {"role": "assistant", "content": HELLO["code"]}]
    title = page.ask(
        "/api/v1/tasks/title/completions", {"model": "chat", "messages": conversation, "chat_id": "local:1"}
    )
    assert title["choices"]

    config = page.ask("/openai/config")
    config["OPENAI_API_CONFIGS"] = {
        "0": {"enable": True, "provider": "llama.cpp", "model_ids": [], "connection_type": "external"}
    }
    page.ask("/openai/config/update", config)
    assert page.loaded()["code"] is True
    page.ask("/openai/models/0/unload", {"model": "code"})
    until(lambda: page.loaded()["code"] is False, "the list says that it is unloaded")
    page.ask("/openai/models/0/load", {"model": "code"})
    until(lambda: page.loaded()["code"] is True, "the list says that it is loaded")
    assert served.orch_json("status")["instances"]
