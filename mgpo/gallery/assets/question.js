// One question: its picture with the group's boxes, what was seen before and after the cut, and every rollout.

const view = { question: null, picture: null };

function showQuestion() {
  const question = data.questions.find((q) => q.key === state.q);
  if (!question) {
    if ($("view").open) $("view").close();
    view.question = null;
    return;
  }
  if (view.question !== question) buildQuestion(question);
  const group = groupAt(question, state.step);
  const selected = clamp(state.rollout, 1, Math.max(group.length, 1)) - 1;
  view.picture.show(group, group.length > 1 ? selected : -1);
  $("scene").style.setProperty("--ratio", view.picture.size[0] / view.picture.size[1]);
  showPair(question, group[selected]);
  showRollouts(group, selected);
  $("replies").replaceChildren(...(group[selected] ? replies(group[selected], selected, group.length === 1) : []));
  const tallies = data.steps.map((step) => tally(groupAt(question, step)));
  const lines = [{ name: "mean reward", values: tallies.map((t) => t.reward) }];
  if (looks) lines.push({ name: "valid boxes", values: tallies.map((t) => t.validShare) });
  $("group-chart").replaceChildren(...chart("This group", lines, data.steps, state.step));
  if ($("view").open) return;
  $("view").showModal();
  $("view").focus(); // not one of its buttons, which Enter would press
}

function buildQuestion(question) {
  view.question = question;
  view.picture = new Picture(question);
  $("scene").replaceChildren(view.picture.node);
  const pictures = picturesOf(question).map(({ size, seen }, i, all) => `${all.length > 1 ? `picture ${i + 1}: ` : ""}${size.join(" × ")} px, first seen at ${seen.join(" × ")}`);
  const tags = [question.category, question.split, question.id, ...pictures];
  $("view-tags").replaceChildren(...tags.filter(Boolean).map((tag) => el("span", { class: "tag" }, tag)));
  $("view-text").textContent = question.text || question.id;
  const letters = question.choices.map((choice, i) => `${String.fromCharCode(65 + i)}. ${choice}`);
  $("view-truth").replaceChildren(...letters.map((choice) => el("span", {}, choice)), el("span", {}, "Right answer: ", el("b", {}, question.truth)));
  $("view").scrollTop = 0;
}

function showPair(question, rollout) {
  const region = rollout?.regions.at(-1);
  if (!region) {
    const reason = data.reasons[rollout?.reason];
    const text = !rollout ? "This question was not asked at this step." : reason ? `Nothing was cut out: ${reason}.` : "Nothing was cut out.";
    $("pair").replaceChildren(el("p", { class: "nothing" }, text));
    return;
  }
  const number = rollout.cut_from.at(-1);
  const images = question.images[region.join(",") + (number > 1 ? ` of ${number}` : "")];
  const picture = picturesOf(question)[number - 1];
  const pixels = picture.seen.map((side, i) => Math.max(1, Math.round(((region[i + 2] - region[i]) * side) / picture.size[i])));
  const sharper = rollout.zoom > 1.05 ? `, ${rollout.zoom.toFixed(1)} × sharper` : ", no sharper";
  const frames = images
    ? [figure(el("img", { src: images[1], alt: "The part in the first view's pixels" }), region, `as first seen, ${pixels.join(" × ")} pixels`),
      figure(el("img", { src: images[0], alt: "The part cut from the original" }), region, `as cut from the original${sharper}`)]
    : [figure(glimpse(picture, region), region, `the part that was cut out${sharper}; the page had no room for it and shows its small picture`)];
  $("pair").replaceChildren(...frames);
}

/** Where the page had no room for a crop: the region of the small picture. */
function glimpse(picture, [left, top, right, bottom]) {
  const image = el("svg", { viewBox: `${left} ${top} ${right - left} ${bottom - top}`, role: "img", "aria-label": "The part in the small picture" });
  const [width, height] = picture.size;
  if (picture.image) image.append(el("image", { href: picture.image, width, height }));
  return image;
}

function figure(image, [left, top, right, bottom], caption) {
  const [width, height] = [right - left, bottom - top];
  image.style.width = `${(100 * width) / Math.max(width, height)}%`;
  image.style.aspectRatio = `${width} / ${height}`;
  return el("figure", {}, el("div", { class: "frame" }, image), el("figcaption", {}, caption));
}

function showRollouts(group, selected) {
  const { count, right } = tally(group);
  $("rollouts-title").textContent = count > 1 ? `${plural(count, "rollout", "rollouts")}, ${right} right` : count ? "Answer" : "";
  const focused = $("rollouts").contains(document.activeElement);
  $("rollouts").replaceChildren(...group.map((rollout, place) => {
    const verdict = el("span", { class: `verdict ${rollout.right ? "right" : "wrong"}` }, verdictOf(rollout));
    const row = el("button", { type: "button", class: "rollout", "aria-current": String(place === selected) },
      el("span", { class: "number" }, String(place + 1)), verdict,
      el("span", { class: "answer" }, rollout.answer ?? "no answer"),
      el("span", { class: "reward" }, `reward ${rollout.reward ?? "none"}`));
    if (rollout.reason) row.append(el("span", { class: "reason" }, data.reasons[rollout.reason] ?? rollout.reason));
    row.addEventListener("click", () => go({ rollout: place + 1 }));
    return el("li", {}, row);
  }));
  if (focused) $("rollouts").children[selected]?.firstChild.focus();
}

function replies(rollout, place, alone) {
  const turns = rollout.replies.map((text, turn) => {
    const box = rollout.named[turn];
    const reason = rollout.reasons[turn];
    const place = rollout.named_in[turn] > 1 ? ` of picture ${rollout.named_in[turn]}` : "";
    const found = [box ? `box ${box.map((edge) => Math.round(edge)).join(", ")}${place}` : "", reason ? data.reasons[reason] ?? reason : ""];
    const note = found.filter(Boolean).join(": ");
    return el("li", {}, el("p", { class: "turn" }, `Turn ${turn + 1}`, el("small", {}, note)), el("pre", {}, text));
  });
  return [el("h3", {}, alone ? "Replies" : `Replies of rollout ${place + 1}`), el("ol", {}, ...turns)];
}

/** Go to a question a number of places further among those that the filters leave. */
function otherQuestion(by) {
  const keys = grid.shown.map((card) => card.question.key);
  const place = keys.indexOf(state.q);
  const next = keys[place < 0 ? 0 : clamp(place + by, 0, keys.length - 1)];
  if (next !== undefined) go({ q: next, rollout: 1 });
}

function otherRollout(by) {
  const group = groupAt(view.question, state.step);
  if (group.length) go({ rollout: clamp(clamp(state.rollout, 1, group.length) + by, 1, group.length) });
}
