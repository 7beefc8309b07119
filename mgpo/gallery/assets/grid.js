// The grid of question cards. Cards fill themselves when they come near the window.

class Card {
  constructor(question) {
    this.question = question;
    this.near = this.fresh = false;
    this.link = el("a", { class: "card", href: "#", "aria-label": question.text || question.id });
    this.node = el("li", {}, this.link);
    this.node.card = this;
  }

  /** Draw the state's step, now or when the card comes near. */
  show() {
    this.fresh = false;
    if (this.near) this.draw();
  }

  draw() {
    if (this.fresh) return;
    this.fresh = true;
    if (!this.picture) this.build();
    const group = groupAt(this.question, state.step);
    this.link.href = hash({ ...state, q: this.question.key, rollout: 1 });
    this.picture.show(group);
    this.dots.replaceChildren(...(group.length > 1 ? group : []).map((r) => el("i", { class: r.right ? "dot right" : "dot wrong" })));
    this.score.textContent = this.verdict(group);
    this.note.textContent = [this.boxes(group), this.change(group)].filter(Boolean).join(" · ");
    const { text, id } = this.question;
    this.link.setAttribute("aria-label", [text || id, this.score.textContent, this.note.textContent].filter(Boolean).join(", "));
  }

  verdict(group) {
    if (!group.length) return "not asked at this step";
    if (group.length === 1) return verdictOf(group[0]);
    return `${tally(group).right}/${group.length} right`;
  }

  boxes(group) {
    const { asked, valid, validShare } = tally(group);
    if (asked > 1) return `${percent(validShare)} valid`;
    return asked ? (valid ? "valid box" : `${data.reasons[group[0].reason] ?? "invalid box"}`) : "";
  }

  build() {
    this.picture = new Picture(this.question);
    this.dots = el("span", { class: "dots", "aria-hidden": "true" });
    this.score = el("span", { class: "score" });
    this.note = el("span", { class: "note" });
    const text = el("span", { class: "card-text" }, this.question.text || this.question.id);
    const tag = el("span", { class: "tag" }, this.question.category || this.question.split || this.question.id);
    const line = el("span", { class: "card-line" }, this.dots, this.score);
    this.link.append(this.picture.node, el("span", { class: "card-body" }, tag, text, line, this.note));
  }

  change(group) {
    const first = groupAt(this.question, data.steps[0]);
    if (state.step === data.steps[0] || !first.length || !group.length) return "";
    const more = tally(group).right - tally(first).right;
    return `${more > 0 ? "▲ " : more < 0 ? "▼ " : "±"}${Math.abs(more)} since step ${data.steps[0]}`;
  }
}

const CARD = 215; // pixels: no card is narrower where two of them would fit
const grid = { cards: [], shown: [] };

function buildGrid() {
  const observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      target.card.near = isIntersecting;
      if (isIntersecting) target.card.draw();
    }
  }, { rootMargin: "300px" });
  grid.cards = data.questions.map((question) => new Card(question));
  $("grid").append(...grid.cards.map((card) => card.node));
  for (const card of grid.cards) observer.observe(card.node);
}

/** Which cards the filters leave, and what they show together at the state's step. */
function showGrid() {
  grid.shown = grid.cards.filter((card) => fits(card.question));
  const shown = new Set(grid.shown);
  for (const card of grid.cards) {
    card.node.hidden = !shown.has(card);
    card.show();
  }
  $("empty").hidden = shown.size > 0;
  setColumns();
  showSummary();
}

/** As many columns as fit, or up to half as many where that leaves fewer places of the last row empty. */
function setColumns() {
  const { columnGap } = getComputedStyle($("grid"));
  const gap = parseFloat(columnGap);
  const [count, width] = [grid.shown.length, $("grid").clientWidth];
  const most = Math.max(1, Math.floor((width + gap) / (Math.min(CARD, 0.44 * innerWidth) + gap)));
  const empty = (columns) => (columns - (count % columns)) % columns;
  let best = most;
  for (let columns = most; columns >= Math.max(2, most / 2); columns--) if (empty(columns) < empty(best)) best = columns;
  $("grid").style.setProperty("--columns", count > most ? best : most);
}

/** Paper shows all cards at once. */
function drawAll() {
  for (const card of grid.shown) card.draw();
}

function showSummary() {
  const questions = grid.shown.map((card) => card.question);
  const at = (step) => tally(questions.flatMap((question) => groupAt(question, step)));
  const all = data.steps.map(at);
  const now = all[data.steps.indexOf(state.step)];
  const since = (share, first) => {
    if (state.step === data.steps[0] || share === null || first === null) return "";
    const points = Math.round(100 * share) - Math.round(100 * first);
    return `${points > 0 ? "+" : points < 0 ? "−" : "±"}${Math.abs(points)} since step ${data.steps[0]}`;
  };
  const of = questions.length === data.questions.length ? "" : `of ${data.questions.length.toLocaleString("en")}`;
  const tiles = [["questions", questions.length.toLocaleString("en"), of], ["right", percent(now.rightShare), since(now.rightShare, all[0].rightShare)]];
  if (looks) tiles.push(["valid boxes", percent(now.validShare), since(now.validShare, all[0].validShare)]);
  $("summary").replaceChildren(...tiles.map(([name, value, note]) =>
    el("div", {}, el("dt", {}, name), el("dd", { class: "value" }, value), el("dd", { class: "since" }, note))));
  const lines = [{ name: "share right", values: all.map((t) => t.rightShare) }];
  if (looks) lines.push({ name: "valid boxes", values: all.map((t) => t.validShare) });
  $("run-chart").replaceChildren(...chart("Questions shown", lines, data.steps, state.step));
}

const FILTERS = {
  answers: { label: "Answers", options: { all: "all right", some: "some right", none: "all wrong" } },
  boxes: { label: "Boxes", options: { all: "all valid", some: "some invalid", none: "all invalid" } },
  change: { label: "Change", options: { changed: "changed since the first step", better: "more right", worse: "fewer right" } },
};
const partOf = (part, all) => (part === all ? "all" : part ? "some" : "none");

function fits(question) {
  const group = groupAt(question, state.step);
  const { count, right, asked, valid } = tally(group);
  const words = [question.id, question.text, question.truth, question.category, ...question.choices, ...group.map((r) => r.answer ?? "")];
  if (state.search && !words.join("\n").toLowerCase().includes(state.search.toLowerCase())) return false;
  if (state.category && question.category !== state.category) return false;
  if (state.split && question.split !== state.split) return false;
  if (state.answers && (!count || partOf(right, count) !== state.answers)) return false;
  if (state.boxes && (!asked || partOf(valid, asked) !== state.boxes)) return false;
  if (!state.change) return true;
  const first = groupAt(question, data.steps[0]);
  const more = count && first.length ? right - tally(first).right : 0;
  return { changed: more !== 0, better: more > 0, worse: more < 0 }[state.change] ?? true;
}

function buildFilters() {
  const search = el("input", { type: "search", name: "search", placeholder: "Question or answer", "aria-label": "Search", autocomplete: "off" });
  $("filters").append(el("label", { class: "wide" }, el("span", {}, "Search"), search));
  for (const name of ["category", "split"]) {
    const values = [...new Set(data.questions.map((question) => question[name]).filter(Boolean))].sort();
    if (values.length > 1) addFilter(name, name[0].toUpperCase() + name.slice(1), Object.fromEntries(values.map((v) => [v, v])));
  }
  for (const [name, { label, options }] of Object.entries(FILTERS)) {
    const useless = (name === "boxes" && !looks) || (name === "change" && data.steps.length < 2);
    if (!useless) addFilter(name, label, options);
  }
  $("filters").addEventListener("input", (event) => go({ [event.target.name]: event.target.value }));
  $("filters").addEventListener("submit", (event) => event.preventDefault());
}

function addFilter(name, label, options) {
  const choices = Object.entries(options).map(([value, text]) => el("option", { value }, text));
  const select = el("select", { name }, el("option", { value: "" }, "any"), ...choices);
  $("filters").append(el("label", {}, el("span", {}, label), select));
}
