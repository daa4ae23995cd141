// The page of the gateway. Whatever comes from outside, a model's name, a log's line, an answer, an error, becomes text
// (textContent) and never markup.
"use strict";

const KEY = "orch.key";
const PLOT_S = 150;
const LOG_LINES = 500;
const RETRY_MS = [1000, 2000, 4000, 8000];
const SILENT_MS = 40000; // the gateway says something each 15 s at least

const $ = (id) => document.getElementById(id);

// ---- small things ---------------------------------------------------------------------------------------------------

function make(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function show(element, text) {
  element.hidden = !text;
  setText(element, text || "");
}

const known = (value) => value !== null && value !== undefined;
const number = (value, digits = 1) => (known(value) ? value.toFixed(value >= 100 || value === 0 ? 0 : digits) : "–");
const percent = (value) => (known(value) ? `${Math.round(value * 100)} %` : "–");
const gib = (mib) => (mib >= 1024 ? `${(mib / 1024).toFixed(1)} GiB` : `${Math.round(mib)} MiB`);
const tokens = (count) => (known(count) ? count.toLocaleString("en") : "–");

function lasting(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

const STATE_CLASS = {
  ready: "good", preparing: "busy", starting: "busy", draining: "busy", stopping: "busy", switching: "busy",
  backoff: "bad", failed: "bad",
};

function paintPill(pill, state) {
  setText(pill, state);
  pill.className = `pill ${STATE_CLASS[state] || ""}`;
}

// ---- the key, and requests ------------------------------------------------------------------------------------------

let key = null;
try {
  key = sessionStorage.getItem(KEY);
} catch {
  // A browser that keeps nothing for pages: the key lasts until the page is left.
}

function keepKey(text) {
  key = text;
  try {
    if (text === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, text);
  } catch {
    // As above.
  }
}

function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (key !== null) headers.authorization = `Bearer ${key}`;
  return fetch(path, { cache: "no-store", ...options, headers });
}

const post = (path, body, signal) =>
  ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal });

async function messageOf(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    return `the gateway answered ${answer.status}`;
  }
}

// The events of a stream, with the text of its comments: [name, data] or [null, comment].
async function* eventsOf(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let name = "message";
  let data = [];
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (let line of lines) {
      if (line.endsWith("\r")) line = line.slice(0, -1);
      if (line === "") {
        if (data.length) yield [name, data.join("\n")];
        name = "message";
        data = [];
      } else if (line.startsWith(":")) yield [null, line.slice(1).trim()];
      else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
      else if (line.startsWith("event:")) name = line.slice(6).trim();
    }
  }
}

// ---- the feed -------------------------------------------------------------------------------------------------------

const may = { act: false, manage: false };
let frame = null;
let feed = null;
let failures = 0;
let retry = 0;
let points = [];
let heard = 0;
let version = null;

async function follow() {
  clearTimeout(retry);
  feed?.abort();
  if (document.hidden) return; // a page that nobody sees costs nothing
  const mine = (feed = new AbortController());
  heard = Date.now();
  let why = "the connection ended";
  try {
    const answer = await ask("/page/feed", { signal: mine.signal });
    if (answer.status === 401) {
      paintPill($("state"), "locked");
      setText($("link"), "");
      askForKey(key === null ? "" : "This key is not one of the gateway's.");
      return;
    }
    if (!answer.ok) throw new Error(await messageOf(answer));
    failures = 0;
    setText($("link"), "");
    for await (const [name, data] of eventsOf(answer)) {
      heard = Date.now();
      if (name !== null) take(name, JSON.parse(data));
    }
  } catch (error) {
    if (mine.signal.aborted) return;
    why = error.message || why;
  }
  if (mine !== feed || mine.signal.aborted) return;
  paintPill($("state"), "no connection");
  setText($("link"), `${why}; trying again`);
  retry = setTimeout(follow, RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)]);
}

function take(name, data) {
  if (name === "hello") {
    may.act = data.may;
    may.manage = data.may && data.manage;
    may.allowed = data.manage;
    if (version !== null && version !== data.version && !talk.length) location.reload(); // of a newer orch
    version = data.version;
    setText($("version"), version);
    setText($("link"), data.may ? "" : "read-only");
    show($("models-note"), data.manage ? "" : "Clients load and unload nothing here: gateway.switch_on_request is off.");
    $("key-button").hidden = !data.keyed;
    setText($("key-button"), data.may ? "Forget key" : "Enter key");
    $("chat-send").disabled = !data.may;
    setText($("log"), "");
    logLines.length = 0;
    if (!data.may) setText($("log"), "Shown to who has the key.");
  } else if (name === "points") points = data.map((point) => [point.at_s, point.decode_tok_s]);
  else if (name === "log") paintLog(data);
  else if (name === "frame") {
    frame = data;
    points.push([Date.now() / 1000, data.rates.decode_tok_s]);
    while (points.length && points[0][0] < Date.now() / 1000 - PLOT_S) points.shift();
    paint();
  }
}

document.addEventListener("visibilitychange", follow);
setInterval(() => {
  // A connection that broke without a word, as when the machine slept.
  if (!document.hidden && feed && !feed.signal.aborted && Date.now() - heard > SILENT_MS && !$("key-dialog").open) follow();
}, 5000);

// ---- figures --------------------------------------------------------------------------------------------------------

function paint() {
  const state = frame.switching ? "switching" : frame.state;
  paintPill($("state"), state);
  const ready = frame.state === "ready" && !frame.switching;
  const runs = [frame.engine, frame.build].filter(known).join(" ");
  setText($("serving"), ready ? `${frame.profile} on ${runs}` : frame.progress);
  document.title = known(frame.profile) ? `${frame.profile} · orch` : "orch";
  show($("notice"), frame.notice || "");
  show($("problem"), frame.cause ? [frame.cause, frame.hint].filter(known).join("; ") : "");
  setText($("speed"), number(frame.rates.decode_tok_s));
  setText($("prompt-speed"), number(frame.rates.prompt_tok_s));
  setText($("drafts"), percent(frame.rates.draft_acceptance));
  setText($("kv"), known(frame.rates.kv_used) ? `cache ${percent(frame.rates.kv_used)} full` : "");
  setText($("running"), String(frame.in_flight));
  setText($("waiting"), frame.queued ? `${frame.queued} waiting` : "none waiting");
  paintPlot();
  paintMemory();
  paintModels();
  paintRequests();
  paintChoice();
}

function paintPlot() {
  const now = Date.now() / 1000;
  const top = Math.max(1, ...points.map(([, speed]) => speed || 0)) * 1.1;
  const dots = points.map(([at, speed]) => `${(PLOT_S - (now - at)).toFixed(1)},${(31 - ((speed || 0) / top) * 30).toFixed(1)}`);
  const [area, line] = $("plot").children;
  line.setAttribute("d", dots.length > 1 ? `M${dots.join("L")}` : "");
  const left = dots.length ? dots[0].split(",")[0] : 0;
  area.setAttribute("d", dots.length > 1 ? `M${left},32L${dots.join("L")}L${PLOT_S},32Z` : "");
}

function paintMemory() {
  const places = frame.gpus.map((gpu) => ({
    name: gpu.name,
    used: gpu.used_mib,
    total: gpu.total_mib,
    more: [known(gpu.engine_mib) ? `engines ${gib(gpu.engine_mib)}` : "", known(gpu.temperature_c) ? `${gpu.temperature_c} °C` : "",
      known(gpu.power_w) ? `${Math.round(gpu.power_w)} W` : ""].filter(Boolean).join(" · "),
  }));
  const { host } = frame;
  if (host.memory_total_mib) {
    places.push({
      name: "Host",
      used: host.memory_total_mib - host.memory_available_mib,
      total: host.memory_total_mib,
      more: known(host.engine_rss_mib) ? `engines ${gib(host.engine_rss_mib)}` : "",
    });
  }
  const box = $("memory");
  while (box.children.length > places.length) box.lastChild.remove();
  places.forEach((place, index) => {
    let gauge = box.children[index];
    if (!gauge) {
      gauge = make("div", "gauge");
      const label = make("div", "label");
      label.append(make("span"), make("span"));
      gauge.append(label, make("meter"), make("div", "muted"));
      box.append(gauge);
    }
    const [label, meter, more] = gauge.children;
    setText(label.firstChild, place.name);
    setText(label.lastChild, `${gib(place.used)} of ${gib(place.total)}`);
    Object.assign(meter, { max: place.total, low: place.total * 0.92, high: place.total * 0.98, optimum: 0, value: place.used });
    meter.setAttribute("aria-label", `${place.name}: memory in use`);
    setText(more, place.more);
  });
}

// ---- models ---------------------------------------------------------------------------------------------------------

const rows = new Map();
const LOADED = new Set(["ready", "starting", "preparing", "backoff"]);

function paintModels() {
  const list = $("models");
  const { models } = frame;
  const names = new Set(models.map((model) => model.name));
  for (const [name, row] of rows) {
    if (!names.has(name)) {
      row.item.remove();
      rows.delete(name);
    }
  }
  list.querySelector(".empty")?.remove();
  models.forEach((model, index) => {
    const row = rows.get(model.name) || newRow(model.name);
    paintModel(row, model);
    if (list.children[index] !== row.item && !row.item.contains(document.activeElement)) {
      list.insertBefore(row.item, list.children[index] || null);
    }
  });
  if (!models.length) list.append(make("li", "empty", "No profile yet: `orch profile new NAME --model FILE` makes one."));
}

function newRow(name) {
  const row = {
    item: make("li"), name: make("strong", "", name), state: make("span", "pill"), focus: make("span", "tag", "default"),
    pinned: make("span", "tag", "pinned"), about: make("p", "meta"), meta: make("p", "meta"), cause: make("p", "cause"),
    load: make("button", "", "Load"), change: make("button", "", "Switch to it"), unload: make("button", "", "Unload"),
    ui: make("a", "", "The engine's own page"), failed: "",
  };
  const top = make("div", "model-top");
  top.append(row.name, row.state, row.focus, row.pinned);
  const acts = make("div", "acts");
  row.focus.title = "Requests that name no model go to it";
  for (const [button, path] of [[row.load, "/models/load"], [row.change, "/page/switch"], [row.unload, "/models/unload"]]) {
    button.type = "button";
    button.addEventListener("click", () => act(row, name, path));
  }
  row.ui.href = `/upstream/${encodeURIComponent(name)}/`;
  row.ui.target = "_blank";
  row.ui.rel = "noopener noreferrer";
  row.cause.setAttribute("role", "alert");
  acts.append(row.load, row.change, row.unload, row.ui);
  row.item.append(top, row.about, row.meta, row.cause, acts);
  for (const [button, word] of [[row.load, "Load"], [row.change, "Switch to"], [row.unload, "Unload"]]) {
    button.setAttribute("aria-label", `${word} ${name}`);
  }
  row.ui.setAttribute("aria-label", `The page of ${name}'s own engine`);
  rows.set(name, row);
  return row;
}

function paintModel(row, model) {
  const loaded = LOADED.has(model.state);
  const ends = model.state === "draining" || model.state === "stopping";
  paintPill(row.state, model.state);
  row.focus.hidden = !(model.focus && loaded);
  row.pinned.hidden = !model.pinned;
  show(row.about, model.description);
  const facts = [];
  if (loaded && model.engine) facts.push(model.engine);
  if (model.device_mib) facts.push(`${gib(model.device_mib)} on devices`);
  if (loaded && model.host_mib) facts.push(`${gib(model.host_mib)} host`);
  if (!loaded && model.size_bytes) facts.push(gib(model.size_bytes / 1048576));
  if (model.context_tokens) facts.push(`context ${tokens(model.context_tokens)}`);
  if (model.in_flight) facts.push(`${model.in_flight} running`);
  if (model.queued) facts.push(`${model.queued} waiting`);
  if (model.state === "ready" && !model.in_flight && model.idle_s >= 10) facts.push(`idle ${lasting(model.idle_s)}`);
  if (model.names.length) facts.push(`also ${model.names.join(", ")}`);
  if (model.waits) facts.push(`waits: ${model.waits}`);
  else if (loaded && model.state !== "ready" && model.progress) facts.push(model.progress);
  show(row.meta, facts.join(" · "));
  show(row.cause, row.failed || [model.cause, model.cause && model.hint].filter(Boolean).join("; "));
  row.load.hidden = loaded || ends;
  row.unload.hidden = !loaded;
  row.change.hidden = (model.focus && loaded) || ends || !known(frame.profile) || frame.state === "stopped";
  row.ui.hidden = !model.ui;
  const reason = may.manage ? "" : may.allowed ? "It needs the key" : "gateway.switch_on_request is off";
  for (const button of [row.load, row.change, row.unload]) {
    button.disabled = !may.manage || row.busy === true;
    button.title = reason;
  }
  if (!reason) row.change.title = `In the place of ${frame.profile}`;
}

async function act(row, name, path) {
  row.busy = true;
  row.failed = "";
  paint();
  try {
    const answer = await post(path, { model: name });
    if (answer.status === 401) askForKey("This key is not one of the gateway's.");
    else if (!answer.ok) row.failed = await messageOf(answer);
  } catch (error) {
    row.failed = error.message;
  }
  row.busy = false;
  paint();
}

// ---- requests and the log -------------------------------------------------------------------------------------------

let paintedRequests = "";

function paintRequests() {
  const text = JSON.stringify(frame.requests);
  if (text === paintedRequests) return;
  paintedRequests = text;
  if (!frame.requests.length) return;
  $("requests").replaceChildren(...frame.requests.map((request) => {
    const row = make("tr");
    const drafts = request.draft_tokens ? percent(request.draft_accepted / request.draft_tokens) : "–";
    const result = request.outcome === "error" && request.status ? `error ${request.status}` : request.outcome.replace("_", " ");
    const held = request.held_s >= 0.1 ? ` (${number(request.held_s)} s held)` : "";
    const took = make("td", "num", `${number(request.total_s)} s`);
    took.append(make("span", "far", held));
    const cells = [
      ["", new Date(request.started).toLocaleTimeString([], { hour12: false })], ["named", request.profile || "–"],
      ["far", request.route], [`result-${request.outcome}`, result],
      ["num far", tokens(request.prompt_tokens)], ["num far", tokens(request.output_tokens)],
      ["num", number(request.decode_tok_s)], ["num far", drafts],
    ];
    row.append(...cells.map(([className, cell]) => make("td", className, cell)), took);
    if (request.client) row.title = `key ${request.client}`;
    return row;
  }));
}

const logLines = [];

function paintLog(lines) {
  logLines.push(...lines);
  logLines.splice(0, Math.max(0, logLines.length - LOG_LINES));
  const log = $("log");
  log.textContent = logLines.join("\n");
  if ($("log-follow").checked) log.scrollTop = log.scrollHeight;
}

// ---- the chat -------------------------------------------------------------------------------------------------------

const talk = [];
let answering = null;
let choices = "";
let chosen = false;

function paintChoice() {
  const select = $("chat-model");
  if (!chosen && select.value !== frame.profile && document.activeElement !== select) choices = ""; // the default has moved
  const wanted = frame.models.flatMap((model) => [model.name, ...model.names]);
  const text = JSON.stringify(wanted);
  if (text === choices) return;
  choices = text;
  const before = chosen ? select.value : frame.profile;
  select.replaceChildren(...wanted.map((name) => {
    const option = make("option", "", name);
    option.value = name;
    return option;
  }));
  select.value = [before, frame.profile].find((name) => wanted.includes(name)) || wanted[0] || "";
}

$("chat-model").addEventListener("change", () => {
  chosen = true;
});

function addSaid(kind, who) {
  $("talk").querySelector(".empty")?.remove();
  const said = make("div", `said ${kind}`);
  const text = make("div", "text");
  said.append(make("div", "who", who), text);
  $("talk").append(said);
  return { said, text };
}

function keepAtEnd(change) {
  const box = $("talk");
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  change();
  if (atEnd) box.scrollTop = box.scrollHeight;
}

function figuresOf(timings, usage, times) {
  const count = timings?.predicted_n ?? usage?.completion_tokens;
  const parts = [];
  if (known(count)) parts.push(`${tokens(count)} tokens`);
  if (timings && count > 1 && timings.predicted_ms > 0) parts.push(`${number(((count - 1) * 1000) / timings.predicted_ms)} tok/s`);
  if (timings?.draft_n) {
    const accepted = timings.draft_n_accepted || 0;
    parts.push(`drafts ${percent(accepted / timings.draft_n)} accepted (${accepted} of ${timings.draft_n})`);
  }
  if (known(times.first)) parts.push(`first token ${number(times.first, 2)} s`);
  return parts.join(" · ");
}

async function send(question) {
  const model = $("chat-model").value;
  const asked = { role: "user", content: question };
  talk.push(asked);
  const own = addSaid("user", "You");
  setText(own.text, question);
  const { said, text } = addSaid("model", model || "Model");
  const figures = make("div", "figures", "waiting");
  said.append(figures);
  $("talk").scrollTop = $("talk").scrollHeight;
  answering = new AbortController();
  $("chat-stop").hidden = false;
  $("chat-send").hidden = true;
  const began = performance.now();
  const times = {};
  let answer = "";
  let thought = "";
  let thoughts = null;
  let timings = null;
  let usage = null;
  let failure = "";
  try {
    const body = { messages: talk, stream: true, stream_options: { include_usage: true } };
    if (model) body.model = model;
    const response = await post("/v1/chat/completions", body, answering.signal);
    if (response.status === 401) askForKey("This key is not one of the gateway's.");
    if (!response.ok) throw new Error(await messageOf(response));
    for await (const [name, data] of eventsOf(response)) {
      if (name === null) {
        if (!answer && !thought && data.startsWith("orch:")) setText(figures, data.slice(5).trim());
        continue;
      }
      if (data === "[DONE]") break;
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message || "the engine failed");
      timings = event.timings || timings;
      usage = event.usage || usage;
      const delta = event.choices?.[0]?.delta || {};
      if (!delta.content && !delta.reasoning_content) continue;
      times.first ??= (performance.now() - began) / 1000;
      keepAtEnd(() => {
        if (delta.reasoning_content) {
          thought += delta.reasoning_content;
          if (!thoughts) {
            thoughts = make("details");
            thoughts.append(make("summary", "", "Thoughts"), make("div"));
            said.insertBefore(thoughts, text);
          }
          thoughts.lastChild.append(delta.reasoning_content);
        }
        if (delta.content) {
          answer += delta.content;
          text.append(delta.content);
        }
        setText(figures, "answering");
      });
    }
  } catch (error) {
    failure = answering.signal.aborted ? "stopped" : error.message;
  }
  const stopped = failure === "stopped";
  keepAtEnd(() => {
    setText(text, answer.trimEnd());
    setText(figures, [figuresOf(timings, usage, times), stopped ? "stopped" : ""].filter(Boolean).join(" · "));
    if (failure && !stopped) said.append(make("div", "failed", failure));
  });
  const at = talk.indexOf(asked); // not there where the conversation was cleared meanwhile
  if (at >= 0 && answer) talk.push({ role: "assistant", content: answer });
  else if (at >= 0) talk.splice(at, 1); // a question without an answer is not repeated with the next one
  setText($("chat-status"), failure ? `The answer ended: ${failure}` : "The answer is complete.");
  answering = null;
  $("chat-stop").hidden = true;
  $("chat-send").hidden = false;
  $("chat-clear").disabled = false;
  if (document.activeElement === document.body) $("chat-text").focus();
}

$("chat-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = $("chat-text").value.trim();
  if (!question || answering || !may.act) return;
  $("chat-text").value = "";
  send(question);
});
$("chat-text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("chat-form").requestSubmit();
  } else if (event.key === "Escape" && answering) answering.abort();
});
$("chat-stop").addEventListener("click", () => answering?.abort());
$("chat-clear").addEventListener("click", () => {
  answering?.abort();
  talk.length = 0;
  $("talk").replaceChildren(make("p", "empty", "Ask something."));
  $("chat-clear").disabled = true;
  $("chat-text").focus();
});

// ---- the key's dialog -----------------------------------------------------------------------------------------------

function askForKey(problem) {
  setText($("key-problem"), problem);
  if (!$("key-dialog").open) $("key-dialog").showModal();
  $("key-text").focus();
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keepKey($("key-text").value.trim());
  $("key-text").value = "";
  $("key-dialog").close();
  follow();
});
$("key-cancel").addEventListener("click", () => $("key-dialog").close());
$("key-dialog").addEventListener("close", () => {
  $("key-text").value = "";
  $("key-button").hidden = false;
});
$("key-button").addEventListener("click", () => {
  if (key === null || !may.act) askForKey("");
  else {
    keepKey(null);
    may.act = may.manage = false;
    location.reload();
  }
});

setText($("address"), `${location.origin}/v1`);
requestAnimationFrame(() => setTimeout(follow)); // the page is painted first
