// The page's state, which is also its address, and what keys and buttons do to it.

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("gallery").textContent);
const splits = new Set(data.questions.map((question) => question.split));
for (const question of data.questions) question.key = splits.size > 1 ? `${question.split}/${question.id}` : question.id;
const groupAt = (question, step) => question.steps[step] ?? [];
const looks = data.questions.some((q) => Object.values(q.steps).some((group) => group.some((r) => r.valid_box !== null)));

const START = { q: "", step: data.steps.at(-1) ?? 0, rollout: 1, search: "", category: "", split: "", answers: "", boxes: "", change: "" };
const state = { ...START };

/** The address of a state: whatever differs from the start, and the step wherever a question is open. */
function hash(of) {
  const said = Object.entries(of).filter(([key, value]) => value !== START[key] || (of.q && (key === "step" || key === "rollout")));
  return `#${new URLSearchParams(said)}`;
}

function readHash() {
  const said = new URLSearchParams(location.hash.slice(1));
  Object.assign(state, START);
  for (const key of Object.keys(START)) if (said.has(key)) state[key] = said.get(key);
  state.step = data.steps.includes(Number(state.step)) ? Number(state.step) : START.step;
  state.rollout = Math.max(1, Math.trunc(Number(state.rollout)) || 1);
}

let writing = 0;
function go(changes) {
  const opens = !state.q && changes.q;
  Object.assign(state, changes);
  show();
  clearTimeout(writing);
  // Browsers refuse addresses that change many times a second.
  if (opens) history.pushState(null, "", hash(state));
  else writing = setTimeout(() => history.replaceState(null, "", hash(state)), 120);
}

let filtered = "";
function show() {
  const asked = JSON.stringify({ ...state, q: "", rollout: 0 });
  if (asked !== filtered) showGrid();
  filtered = asked;
  for (const field of $("filters").elements) if (field.value !== state[field.name]) field.value = state[field.name];
  for (const stepper of document.querySelectorAll("[data-stepper]")) stepper.update?.();
  showQuestion();
}

function buildStepper(place) {
  if (data.steps.length < 2) {
    place.hidden = true;
    return;
  }
  const ticks = el("datalist", { id: `steps-${document.querySelectorAll("datalist").length}` });
  ticks.append(...data.steps.map((step, place) => el("option", { value: place, label: step })));
  const slider = el("input", { type: "range", min: 0, max: data.steps.length - 1, step: 1, list: ticks.id, "aria-label": "Step" });
  const play = el("button", { type: "button", class: "play" });
  const where = el("output", {});
  place.append(play, slider, where, ticks);
  slider.addEventListener("input", () => go({ step: data.steps[slider.value] }));
  play.addEventListener("click", () => (playing ? stop() : start()));
  place.update = () => {
    slider.value = data.steps.indexOf(state.step);
    slider.setAttribute("aria-valuetext", `step ${state.step}`);
    where.textContent = `step ${state.step}`;
    play.textContent = playing ? "❚❚ Pause" : "▶ Play";
  };
}

let playing = 0;
function start() {
  if (state.step === data.steps.at(-1)) go({ step: data.steps[0] });
  playing = setInterval(() => {
    if (state.step === data.steps.at(-1)) stop();
    else otherStep(1);
  }, 1000);
  show();
}

function stop() {
  clearInterval(playing);
  playing = 0;
  show();
}

function otherStep(by) {
  go({ step: data.steps[clamp(data.steps.indexOf(state.step) + by, 0, data.steps.length - 1)] });
}

function otherCard(by) {
  const place = grid.shown.findIndex((card) => card.link === document.activeElement);
  grid.shown[place < 0 ? 0 : clamp(place + by, 0, grid.shown.length - 1)]?.link.focus();
}

function onKey(event) {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open || target.matches("input:not([type=range]), select")) return;
  if (target.type === "range" && key.startsWith("Arrow")) return;
  const open = Boolean(state.q && view.question);
  const move = open ? otherRollout : otherCard;
  const action = {
    ArrowLeft: () => otherStep(-1), ArrowRight: () => otherStep(1),
    ArrowUp: () => move(-1), ArrowDown: () => move(1), k: () => move(-1), j: () => move(1),
    p: () => (open ? otherQuestion(-1) : otherCard(-1)), n: () => (open ? otherQuestion(1) : otherCard(1)),
    "?": () => $("keys").showModal(),
  }[key];
  if (!action || ((key === "ArrowLeft" || key === "ArrowRight") && data.steps.length < 2)) return;
  event.preventDefault();
  action();
}

function setTheme(dark) {
  document.documentElement.style.colorScheme = dark ? "dark" : "light";
  $("theme").textContent = dark ? "Light" : "Dark";
}

function listen() {
  document.addEventListener("keydown", onKey);
  addEventListener("hashchange", () => { readHash(); show(); });
  addEventListener("resize", setColumns);
  addEventListener("beforeprint", drawAll);
  $("grid").addEventListener("click", (event) => {
    const card = event.target.closest("li")?.card;
    if (!card || event.ctrlKey || event.metaKey || event.shiftKey) return; // another tab or window
    event.preventDefault();
    go({ q: card.question.key, rollout: 1 });
  });
  $("view").addEventListener("close", () => {
    const card = grid.cards.find((other) => other.question === view.question);
    if (state.q) go({ q: "", rollout: 1 });
    card?.link.focus();
  });
  $("view").addEventListener("click", (event) => event.target === $("view") && $("view").close());
  $("close").addEventListener("click", () => $("view").close());
  $("previous").addEventListener("click", () => otherQuestion(-1));
  $("next").addEventListener("click", () => otherQuestion(1));
  $("show-keys").addEventListener("click", () => $("keys").showModal());
  $("hide-keys").addEventListener("click", () => $("keys").close());
  $("reset").addEventListener("click", () => go({ search: "", category: "", split: "", answers: "", boxes: "", change: "" }));
  $("theme").addEventListener("click", () => setTheme($("theme").textContent === "Dark"));
}

function legend() {
  const sign = (kind) => {
    const mark = el("g", { class: kind }, el("rect", { class: "line", x: 2, y: 2, width: 18, height: 12 }));
    if (kind === "wrong") mark.append(el("path", { d: "M5 5 l5 5 m0 -5 l-5 5" }));
    return el("svg", { viewBox: "0 0 22 16", width: 22, height: 16, "aria-hidden": "true" }, mark);
  };
  const kinds = [["right", "answer right"], ["wrong", "answer wrong"], ["unusable", "dashed: box could not be used"]];
  return kinds.map(([kind, text]) => el("span", {}, sign(kind), text));
}

const narrow = matchMedia("(max-width: 760px)");
const fold = () => { $("filtering").open = !narrow.matches; };
narrow.addEventListener("change", fold);
fold();
setTheme(matchMedia("(prefers-color-scheme: dark)").matches);
if (looks) $("legend").append("Each frame is one rollout’s first box: ", ...legend());
buildFilters();
buildGrid();
document.querySelectorAll("[data-stepper]").forEach(buildStepper);
listen();
readHash();
show();
