import DOMPurify from "/vendor/dompurify.js";
import { marked } from "/vendor/marked.js";

/** @type {(id: string) => any} */
const element = (id) => document.getElementById(id);

const page = {
  sessions: element("sessions"),
  more: element("more"),
  title: element("title"),
  actions: element("session-actions"),
  notice: element("notice"),
  scroll: element("scroll"),
  welcome: element("welcome"),
  earlier: element("earlier"),
  messages: element("messages"),
  composer: element("composer"),
  message: element("message"),
  send: element("send"),
  stop: element("stop"),
  facts: element("facts"),
  given: element("given"),
  raw: element("raw"),
};

/** The conversation on the screen; `undefined` for a new one, which exists from its first message on. */
let current;
/** Stops the answer that is being written. */
let answering;
/** What `GET /api/server` said last. */
let server;

// ---------------------------------------------------------------- requests

class Problem extends Error {
  constructor({ code, message }) {
    super(message);
    this.code = code;
  }
}

/** The server could not be reached, or went away in the middle of an answer. */
class Away extends Error {}

async function request(method, path, body, signal) {
  let response;
  try {
    response = await fetch(path, {
      method,
      signal,
      ...(body && {
        body: JSON.stringify(body),
        headers: { "Content-Type": "application/json" },
      }),
    });
  } catch (cause) {
    if (signal?.aborted) throw cause;
    throw new Away("The server does not answer", { cause });
  }
  if (!response.ok) throw new Problem(await response.json());
  return response;
}

const get = async (path) => (await request("GET", path)).json();
const pathOf = (id) => `/api/sessions/${encodeURIComponent(id)}`;

/** The events of an answer, as the server sends them. */
async function* eventsOf(response) {
  let buffer = "";
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read().catch((cause) => {
      throw new Away("The server went away", { cause });
    });
    if (done) return;
    buffer += value;
    const events = buffer.split("\n\n");
    buffer = events.pop() ?? "";
    for (const event of events) {
      const [, name, data] = /^event: (.*)\ndata: (.*)$/.exec(event) ?? [];
      if (name && data) yield { name, data: JSON.parse(data) };
    }
  }
}

// ---------------------------------------------------------------- showing

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

/** A model's answer is Markdown; what it says is never trusted. */
function renderMarkdown(node, text) {
  node.replaceChildren(
    DOMPurify.sanitize(marked.parse(text, { async: false }), {
      RETURN_DOM_FRAGMENT: true,
      FORBID_TAGS: ["style", "form", "input"],
    }),
  );
}

function textOf(content) {
  if (typeof content === "string") return content;
  return content.map((part) => (part.type === "text" ? part.text : `[${part.type}]`)).join("\n");
}

function makeMessage(role, text = "") {
  const node = make("article", `message ${role}`);
  const body = make("div", "text");
  node.append(make("span", "hidden", role === "user" ? "You:" : "Assistant:"), body);
  if (role === "user") body.textContent = text;
  else renderMarkdown(body, text);
  return node;
}

function showMessages(messages) {
  return messages
    .filter(({ role }) => role === "user" || role === "assistant")
    .map((message) => {
      const node = makeMessage(message.role, textOf(message.content));
      node.title = new Date(message.createdAt).toLocaleString();
      if (message.annotations?.some(({ partial }) => partial)) {
        node.append(make("p", "note", "Stopped here. What was said until then is stored."));
      }
      return node;
    });
}

function scrollToEnd() {
  page.scroll.scrollTop = page.scroll.scrollHeight;
}

function notify(text, good = false) {
  page.notice.hidden = !text;
  page.notice.className = good ? "good" : "";
  page.notice.textContent = text;
}

function showTitle(title) {
  page.title.textContent = title ?? "New chat";
  page.actions.hidden = current === undefined;
  document.title = title ? `${title} · Chatstore demo` : "Chatstore demo";
  for (const button of page.sessions.querySelectorAll("button")) {
    button.toggleAttribute("aria-current", button.dataset.id === current);
  }
}

function showFacts(session) {
  const survives = {
    nothing: "nothing: it is in RAM",
    process: "the end of the process",
    host: "a power failure",
    failover: "the loss of a server",
  };
  const facts = [
    ["Backend", server.backend],
    ["Survives", survives[server.survives] ?? server.survives],
    ["Model", server.model],
    ...(session
      ? [
          ["Key", session.key, "mono"],
          ["Version", session.version, "mono"],
          ["Messages", String(session.messageCount)],
          ["Changed", new Date(session.updatedAt).toLocaleString()],
        ]
      : [["Messages", "none yet: say something, and see it arrive here"]]),
  ];
  page.facts.replaceChildren(
    ...facts.flatMap(([name, value, kind]) => [make("dt", "", name), make("dd", kind, value)]),
  );
}

function showRaw(messages) {
  page.raw.hidden = messages.length === 0;
  page.raw.querySelector("ol").replaceChildren(
    ...messages.toReversed().map((message) => {
      const item = make("li");
      item.append(make("pre", "", JSON.stringify(message, null, 2)));
      return item;
    }),
  );
}

function showGiven(given) {
  page.given.hidden = given === undefined;
  if (given === undefined) return;
  page.given.querySelector("p").textContent =
    `For the last answer, process ${given.process} restored the conversation and gave the model these messages:`;
  page.given.querySelector("ol").replaceChildren(
    ...given.messages.map(({ role, content }) => {
      const item = make("li");
      item.append(make("span", "", role), make("span", "", textOf(content)));
      return item;
    }),
  );
}

// ---------------------------------------------------------------- conversations

async function listSessions(cursor) {
  const found = await get(`/api/sessions${cursor ? `?cursor=${encodeURIComponent(cursor)}` : ""}`);
  const items = found.sessions.map(({ id, title }) => {
    const item = make("li");
    const button = make("button", "session", title ?? "Untitled");
    button.type = "button";
    button.dataset.id = id;
    button.toggleAttribute("aria-current", id === current);
    button.onclick = () => attempt(() => openSession(id));
    item.append(button);
    return item;
  });
  if (cursor) page.sessions.append(...items);
  else page.sessions.replaceChildren(...items);
  page.more.hidden = found.cursor === undefined;
  page.more.onclick = () => attempt(() => listSessions(found.cursor));
}

/** Nothing, when the conversation is gone. */
async function readSession(id, before) {
  try {
    return await get(
      `${pathOf(id)}/messages${before ? `?before=${encodeURIComponent(before)}` : ""}`,
    );
  } catch (error) {
    if (error instanceof Problem && error.code === "SESSION_NOT_FOUND") return undefined;
    throw error;
  }
}

function newSession() {
  answering?.abort();
  current = undefined;
  history.replaceState(null, "", location.pathname);
  page.messages.replaceChildren();
  page.welcome.hidden = false;
  page.earlier.hidden = true;
  closeDrawers();
  showTitle();
  showFacts();
  showRaw([]);
  showGiven();
  page.message.focus();
}

async function openSession(id) {
  const found = await readSession(id);
  if (found === undefined) return newSession();
  answering?.abort();
  const { session, messages } = found;
  if (id !== current) showGiven();
  current = id;
  history.replaceState(null, "", `#${id}`);
  page.welcome.hidden = true;
  page.messages.replaceChildren(...showMessages(messages));
  showEarlier(session, messages);
  closeDrawers();
  showTitle(session.title);
  showFacts(session);
  showRaw(messages);
  scrollToEnd();
}

async function showStored(id) {
  const found = await readSession(id);
  if (found === undefined || id !== current) return;
  showFacts(found.session);
  showRaw(found.messages);
}

function showEarlier(session, messages) {
  page.earlier.hidden =
    messages.length === 0 || page.messages.children.length >= session.messageCount;
  page.earlier.onclick = () =>
    attempt(async () => {
      const found = await readSession(current, messages[0].id);
      const height = page.scroll.scrollHeight;
      page.messages.prepend(...showMessages(found?.messages ?? []));
      page.scroll.scrollTop += page.scroll.scrollHeight - height;
      if (found) showEarlier(session, found.messages);
    });
}

/** The first words name the conversation. */
function titleFrom(text) {
  const line = text.replace(/\s+/g, " ");
  return line.length <= 60 ? line : `${line.slice(0, 60).replace(/ \S*$/, "")}…`;
}

async function beginSession(title) {
  const { id } = await (await request("POST", "/api/sessions", { title })).json();
  current = id;
  history.replaceState(null, "", `#${id}`);
  await listSessions();
  showTitle(title);
  return id;
}

async function say(text) {
  notify("");
  page.welcome.hidden = true;
  const reply = makeMessage("assistant");
  const body = reply.querySelector(".text");
  body.classList.add("thinking");
  page.messages.append(makeMessage("user", text), reply);
  page.messages.setAttribute("aria-busy", "true");
  scrollToEnd();

  const stopper = new AbortController();
  answering = stopper;
  setBusy(true);
  let answer = "";
  let accepted = false;
  let complete = false;
  try {
    const id = current ?? (await beginSession(titleFrom(text)));
    const response = await request(
      "POST",
      `${pathOf(id)}/messages`,
      { message: text },
      stopper.signal,
    );
    for await (const { name, data } of eventsOf(response)) {
      if (name === "given") {
        showGiven(data);
        accepted = true;
        const restored = data.messages.filter(({ role }) => role !== "system").length - 1;
        const count = restored === 1 ? "1 earlier message" : `${restored || "no"} earlier messages`;
        reply.append(
          make("p", "note", `process ${data.process} · ${count} restored from the store`),
        );
        await showStored(id);
      } else if (name === "text") {
        const atEnd =
          page.scroll.scrollHeight - page.scroll.scrollTop - page.scroll.clientHeight < 60;
        body.classList.remove("thinking");
        answer += data;
        renderMarkdown(body, answer);
        if (atEnd) scrollToEnd();
      } else if (name === "error") throw new Problem(data);
      else complete = name === "done";
    }
    if (!complete) throw new Away("The server went away");
    await showStored(id);
    await listSessions();
  } catch (error) {
    if (stopper.signal.aborted) return reply.append(make("p", "note", "Stopped."));
    if (!complete) {
      reply.append(make("p", "note failed", `No complete answer: ${error.message}.`));
    }
    // What was not accepted is stored nowhere but here.
    if (!accepted) page.message.value ||= text;
    throw error;
  } finally {
    body.classList.remove("thinking");
    page.messages.removeAttribute("aria-busy");
    if (answering === stopper) {
      answering = undefined;
      setBusy(false);
    }
  }
}

function setBusy(busy) {
  page.send.hidden = busy;
  page.stop.hidden = !busy;
}

// ---------------------------------------------------------------- a server that is away

/** Do it, and show what went wrong. */
async function attempt(action) {
  try {
    await action();
  } catch (error) {
    if (error instanceof Away) await waitForServer();
    else notify(error.message);
  }
}

let waiting = false;

async function waitForServer() {
  if (waiting) return;
  waiting = true;
  const before = server?.process;
  notify("The server is away. Start it again: all that was stored is still there.");
  while (waiting) {
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    try {
      server = await get("/api/server");
      waiting = false;
    } catch {
      // still away
    }
  }
  notify(
    server.process === before
      ? "The server is back."
      : `The server is back, as process ${server.process}. Ask: “What did I ask before?”`,
    true,
  );
  await attempt(async () => {
    await listSessions();
    if (current) await openSession(current);
  });
}

// ---------------------------------------------------------------- what people do

page.composer.onsubmit = (event) => {
  event.preventDefault();
  const text = page.message.value.trim();
  if (!text || answering) return;
  page.message.value = "";
  void attempt(() => say(text));
};

page.message.onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  page.composer.requestSubmit();
};

for (const suggestion of page.welcome.querySelectorAll(".suggestions button")) {
  suggestion.onclick = () => attempt(() => say(suggestion.textContent));
}

page.stop.onclick = () => answering?.abort();
element("new").onclick = newSession;

element("rename").onclick = () =>
  attempt(async () => {
    const title = await ask({
      title: "Rename this conversation",
      input: page.title.textContent,
      confirm: "Rename",
    });
    if (!title) return;
    await request("PATCH", pathOf(current), { title });
    await listSessions();
    await openSession(current);
  });

element("delete").onclick = () =>
  attempt(async () => {
    const sure = await ask({
      title: "Delete this conversation?",
      text: "Its messages and its title are removed from the store.",
      confirm: "Delete",
    });
    if (!sure) return;
    await request("DELETE", pathOf(current));
    newSession();
    await listSessions();
  });

element("erase").onclick = () =>
  attempt(async () => {
    const sure = await ask({
      title: "Erase all that you said?",
      text: "All of your conversations are removed from the store. Other people's stay.",
      confirm: "Erase me",
    });
    if (!sure) return;
    const { erased } = await (await request("DELETE", "/api/me")).json();
    newSession();
    await listSessions();
    notify(`Erased ${erased === 1 ? "one conversation" : `${erased} conversations`}.`, true);
  });

/**
 * What the person typed, or `true`; nothing, when cancelled.
 *
 * @param {{ title: string, text?: string, input?: string, confirm: string }} question
 */
function ask({ title, text = "", input, confirm }) {
  const dialog = element("dialog");
  const field = element("dialog-input");
  const button = element("dialog-confirm");
  element("dialog-title").textContent = title;
  dialog.querySelector("p").textContent = text;
  dialog.querySelector("p").hidden = !text;
  field.hidden = input === undefined;
  field.value = input ?? "";
  button.textContent = confirm;
  button.classList.toggle("destructive", input === undefined);
  dialog.returnValue = "";
  dialog.showModal();
  if (input === undefined) button.focus();
  else field.select();
  return new Promise((resolve) => {
    dialog.onclose = () =>
      resolve(dialog.returnValue && (input === undefined || field.value.trim()));
  });
}

// On a narrow screen the two panels are drawers.
for (const name of ["sidebar", "inspector"]) {
  element(`open-${name}`).onclick = () => {
    closeDrawers();
    element(name).classList.add("open");
    element(`open-${name}`).setAttribute("aria-expanded", "true");
    element("backdrop").hidden = false;
    element(name).querySelector("button").focus();
  };
}

function closeDrawers() {
  element("backdrop").hidden = true;
  for (const name of ["sidebar", "inspector"]) {
    const button = element(`open-${name}`);
    if (button.getAttribute("aria-expanded") === "true") button.focus();
    button.setAttribute("aria-expanded", "false");
    element(name).classList.remove("open");
  }
}

element("backdrop").onclick = closeDrawers;
element("close-inspector").onclick = closeDrawers;
document.onkeydown = (event) => {
  if (event.key === "Escape") closeDrawers();
};

await attempt(async () => {
  server = await get("/api/server");
  await listSessions();
  if (location.hash) await openSession(decodeURIComponent(location.hash.slice(1)));
  else newSession();
});
