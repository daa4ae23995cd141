"""Libraries and command lines, and the requests of programs that are not installed here."""

from __future__ import annotations

import ast
import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from orchestrator.adapters.process.ports import free_port
from orchestrator.engines.known.layout import WIDTH
from tests.clients.conftest import HELLO, MIDDLE, PROFILE
from tests.clients.guide import Guide, blocks
from tests.engines.real_models import fetch
from tests.support import Home, until

pytestmark = pytest.mark.timeout(400)

BOTH = [HELLO["chat"], HELLO["code"]]


@pytest.mark.client("openai")
def test_openais_library_lists_streams_switches_calls_a_tool_and_embeds(guide: Guide) -> None:
    listed, *texts, arguments, response, dimensions = guide.follow().splitlines()
    assert {"chat", "code", "embed"} <= set(ast.literal_eval(listed))
    assert texts == BOTH
    assert json.loads(arguments) == {"city": "Paris"}
    assert response == HELLO["chat"]
    assert int(dimensions) == WIDTH


@pytest.mark.client("openai")
def test_openais_library_gets_structured_output_and_completions(guide: Guide) -> None:
    text = """
from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8080/v1", api_key="none")
city = {"type": "object", "properties": {"city": {"enum": ["Paris"]}}, "required": ["city"]}
answer = client.chat.completions.create(
    model="chat", messages=[{"role": "user", "content": "Where?"}],
    response_format={"type": "json_schema", "json_schema": {"name": "place", "schema": city}},
)
print(answer.choices[0].message.content.replace("\\n", " "))
print(client.completions.create(model="chat", prompt="A", max_tokens=16, temperature=0).choices[0].text)
"""
    place, completed = guide.run("python", text).splitlines()
    assert json.loads(place) == {"city": "Paris"}
    assert completed == HELLO["chat"], "the letter A begins the model's first answer"


@pytest.mark.client("openai")
def test_a_name_that_a_client_has_built_in_is_an_alias(guide: Guide) -> None:
    text = """
from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8080/v1", api_key="none")
for name in ("gpt-4o", "llama-server"):
    answer = client.chat.completions.create(model=name, messages=[{"role": "user", "content": "hi"}])
    print(answer.choices[0].message.content)
"""
    assert guide.run("python", text).splitlines() == [HELLO["chat"]] * 2


@pytest.mark.client("openai")
def test_a_real_model_answers_beside_the_others(guide: Guide, served: Home) -> None:
    """One whose template knows no tools: a tool that comes along does no harm."""
    found = fetch("smollm2")
    if isinstance(found, str):
        pytest.skip(found)

    served.profile("smollm2", PROFILE.format(model=found, engine="embedded", more="context.size = 4096"))
    text = """
from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8080/v1", api_key="none")
messages = [{"role": "user", "content": "What is the capital city of France called?"}]
asked = {"model": "smollm2", "messages": messages, "max_tokens": 40, "temperature": 0}
print(client.chat.completions.create(**asked).choices[0].message.content)
function = {"name": "test_function", "parameters": {"type": "object", "properties": {}}}
assert client.chat.completions.create(**asked, tools=[{"type": "function", "function": function}]).choices
"""
    assert "Paris" in guide.run("python", text)


@pytest.mark.client
def test_a_stream_that_waits_for_a_load_gets_comments(served: Home) -> None:
    """So that what the other tests show holds with them: each finds `code` unloaded."""
    served.orch("unload", "code", check=False)
    body = {"model": "code", "messages": [{"role": "user", "content": "Say hello"}], "stream": True}
    streamed = ask(int(served.url.rpartition(":")[2]), "/v1/chat/completions", body)
    assert streamed.startswith(": orch: ")
    assert said(streamed) == HELLO["code"]


@pytest.mark.client("openai-js")
def test_openais_library_for_javascript_streams_and_switches(guide: Guide) -> None:
    assert guide.follow().splitlines() == BOTH


@pytest.mark.client("anthropic")
def test_anthropics_library_streams_calls_a_tool_and_counts(guide: Guide) -> None:
    text, called, count = guide.follow().splitlines()
    assert text == HELLO["chat"]
    assert called == "tool_use {'city': 'Paris'}"
    assert int(count) > 0


@pytest.mark.client("litellm")
def test_litellms_library_switches(guide: Guide) -> None:
    guide.env["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    assert guide.follow().splitlines()[-2:] == BOTH


@pytest.mark.client("litellm")
def test_litellms_proxy_answers_for_both_models(guide: Guide) -> None:
    port = free_port()
    guide.changes["4000"] = str(port)
    with guide.following("litellm-proxy", {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}) as process:

        def ready() -> bool:
            assert process.poll() is None, guide.printed()
            return answered(port, "/health/liveliness")

        until(ready, "the proxy answers")
        key = f"sk-{(guide.project / 'litellm.key').read_text().strip()}"
        for name, text in HELLO.items():
            body = {"model": name, "messages": [{"role": "user", "content": "Say hello"}]}
            answer = ask(port, "/v1/chat/completions", body, key=key)
            assert answer["choices"][0]["message"]["content"] == text

        streamed = ask(port, "/v1/chat/completions", {**body, "stream": True}, key=key)
        assert said(streamed) == HELLO["code"]


@pytest.mark.client("langchain")
def test_langchain_streams_calls_a_tool_embeds_and_speaks_both_apis(guide: Guide) -> None:
    text, arguments, other, dimensions = guide.follow().splitlines()
    assert (text, ast.literal_eval(arguments), other) == (HELLO["chat"], {"city": "Paris"}, HELLO["chat"])
    assert int(dimensions) == WIDTH


@pytest.mark.client("llm")
def test_llm_asks_both_models(guide: Guide) -> None:
    assert guide.follow().splitlines() == BOTH


@pytest.mark.client("home-assistant")
def test_the_requests_of_home_assistants_integration_are_answered(guide: Guide) -> None:
    """As `homeassistant/components/llama_cpp` asks: the list, the trial of a model, a command by stream."""
    text = """
from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8080/v1", api_key="none")
assert "code" in [model.id for model in client.with_options(timeout=10.0).models.list()]
messages = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]
nothing = {"type": "object", "properties": {}}
function = {"name": "test_function", "description": "Test function.", "parameters": nothing}
tools = [{"type": "function", "function": function}]
for model in ("chat", "code"):
    asked = {"model": model, "messages": messages, "tools": tools, "max_tokens": 3}
    assert client.chat.completions.create(**asked, stream=False).choices
    stream = client.chat.completions.create(**asked, stream=True)
    assert [chunk.choices[0].finish_reason for chunk in stream if chunk.choices][-1]

city = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
stream = client.chat.completions.create(
    model="code", messages=messages, stream=True, max_tokens=3000, top_p=1.0, temperature=1.0, user="01JX",
    tools=[{"type": "function", "function": {"name": "get_weather", "parameters": city}}],
)
calls = [call for chunk in stream if chunk.choices for call in chunk.choices[0].delta.tool_calls or []]
print("".join(call.function.arguments or "" for call in calls))
"""
    assert json.loads(guide.run("python", text)) == {"city": "Paris"}


@pytest.mark.client("n8n")
def test_what_n8ns_node_is_made_of_streams_and_calls_a_tool_by_both_apis(guide: Guide) -> None:
    text = """
import { ChatOpenAI } from "@langchain/openai";
import { tool } from "@langchain/core/tools";

const weather = tool(async () => "sunny", {
  name: "get_weather",
  description: "The weather of a city",
  schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
});
const configuration = { baseURL: "http://127.0.0.1:8080/v1" };
for (const useResponsesApi of [false, true]) {
  const options = { apiKey: "none", configuration, useResponsesApi };
  let text = "";
  const chat = new ChatOpenAI({ ...options, model: "chat" });
  for await (const chunk of await chat.stream("Say hello")) text += chunk.text;
  console.log(text);
  const code = new ChatOpenAI({ ...options, model: "code" }).bindTools([weather]);
  const answer = await code.invoke("How is the weather in Paris?");
  console.log(answer.tool_calls[0].args.city);
}
"""
    assert guide.run("js", text).splitlines() == [HELLO["chat"], "Paris"] * 2


@pytest.mark.client
def test_the_requests_of_llama_vscode_are_answered(served: Home) -> None:
    """As its `src/llama-server.ts` asks, with the endpoints and names of the document's settings."""
    (settings,) = blocks("llama-vscode")
    lists = json.loads(settings.text)
    port = int(served.url.rpartition(":")[2])
    (completing,) = lists["llama-vscode.completion_models_list"]
    assert completing["endpoint"] == "http://127.0.0.1:8080"
    assert answered(port, "/health")
    infill = {
        "id_slot": 0, "input_prefix": "def greet():\n", "input_suffix": "\n", "input_extra": [], "prompt": "    ",
        "n_predict": 128, "n_cmpl": 1, "top_k": 40, "top_p": 0.99, "stream": False,
        "samplers": ["top_k", "top_p", "infill"], "cache_prompt": True,
        "t_max_prompt_ms": 500, "t_max_predict_ms": 1000,
    }  # fmt: skip
    ask(port, "/infill", {**infill, "model": completing["aiModel"]})  # loads it; its time may be over then
    answer = ask(port, "/infill", {**infill, "model": completing["aiModel"]})
    assert answer["content"] == MIDDLE
    served.orch("up", "code")  # what names no model goes there
    warm = {**infill, "n_predict": 0, "samplers": [], "t_max_predict_ms": 1}
    assert "content" in ask(port, "/infill", warm)

    (chatting,) = lists["llama-vscode.chat_models_list"]
    message = {"messages": [{"role": "user", "content": "hi"}], "stream": False, "temperature": 0.8}
    text = ask(port, "/v1/chat/completions", {**message, "model": chatting["aiModel"]})
    assert text["choices"][0]["message"]["content"] == HELLO["chat"]
    (tool_user,) = lists["llama-vscode.tools_models_list"]
    assert tool_user["aiModel"] in [model["id"] for model in ask(port, "/v1/models")["data"]]
    assert ask(port, f"/props?model={tool_user['aiModel']}")["default_generation_settings"]["n_ctx"] == 65536


def ask(port: int, path: str, body: object = None, *, key: str = "none") -> Any:
    """What is answered: JSON, or text where it is none."""
    data = json.dumps(body).encode() if body is not None else None
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            text = response.read().decode()
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{path}: {error.code} {error.read()[:500]!r}") from error

    return json.loads(text) if text[:1] in "{[" else text


def answered(port: int, path: str) -> bool:
    try:
        ask(port, path)
    except (OSError, AssertionError):
        return False

    return True


def said(stream: str) -> str:
    """The text of a stream of chat chunks."""
    events = [line.removeprefix("data: ") for line in stream.splitlines() if line.startswith("data: {")]
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)
