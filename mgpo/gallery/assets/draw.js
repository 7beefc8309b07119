// Elements, boxes on a picture, and charts. Texts enter the page as text nodes and attributes only, never as markup.

const SVG = "http://www.w3.org/2000/svg";
const SHAPES = new Set(["svg", "g", "rect", "path", "line", "circle", "text", "image"]);

function el(name, attributes = {}, ...children) {
  const node = SHAPES.has(name) ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const percent = (share) => (share === null ? "–" : `${Math.round(100 * share)} %`);
const plural = (count, one, many) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** What a group, or several together, did: counts, and shares that are null where there is nothing to share. */
function tally(rollouts) {
  const right = rollouts.filter((r) => r.right).length;
  const asked = rollouts.filter((r) => r.valid_box !== null);
  const valid = asked.filter((r) => r.valid_box).length;
  const reward = rollouts.reduce((sum, r) => sum + (r.reward ?? 0), 0);
  const share = (part, all) => (all ? part / all : null);
  return {
    count: rollouts.length, right, asked: asked.length, valid,
    rightShare: share(right, rollouts.length), validShare: share(valid, asked.length),
    reward: share(reward, rollouts.length),
  };
}

const verdictOf = (rollout) => (rollout.right ? "✓ right" : "✗ wrong");

/** The boxes that a rollout named, each with its turn, the number of its picture and whether it could be used. */
function boxesOf(rollout) {
  const found = rollout.named.map((box, turn) => ({ box, turn, number: rollout.named_in[turn], usable: rollout.reasons[turn] === null }));
  return found.filter(({ box }) => box);
}

/** The pictures of a question: size, size when first seen, and the small picture where the page had room for it. */
function picturesOf(question) {
  const { size, seen, others, images } = question;
  return [{ size, seen }, ...(others ?? [])].map((picture, i) => ({ ...picture, image: images[i ? `picture ${i + 1}` : "picture"] }));
}

/** A question's small picture under its group's boxes, which glide when the step changes. */
class Picture {
  constructor(question) {
    this.question = question;
    this.node = el("div", { class: "picture" });
    this.see(1);
  }

  /** One of the question's pictures, by its number, without boxes. */
  see(number) {
    const { size, image } = picturesOf(this.question)[number - 1];
    const [width, height] = size;
    this.number = number;
    this.size = size;
    this.unit = Math.max(width, height) / 100;
    this.marks = new Map();
    this.svg = el("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
    this.node.replaceChildren(this.svg);
    if (image) {
      const alt = `Picture${number > 1 ? ` ${number}` : ""} of the question: ${this.question.text}`;
      this.node.prepend(el("img", { src: image, alt, draggable: "false" }));
    } else {
      this.svg.append(el("rect", { class: "missing", width, height }));
    }
  }

  /** Each rollout's first box; of the selected one, if any, all boxes. Of several pictures the one that is named first. */
  show(rollouts, selected = -1) {
    const number = [...rollouts.slice(selected, selected + 1), ...rollouts].flatMap(boxesOf)[0]?.number ?? 1;
    if (number !== this.number) this.see(number);
    const drawn = new Set();
    rollouts.forEach((rollout, place) => {
      const boxes = boxesOf(rollout).filter((box) => box.number === number);
      for (const { box, turn, usable } of place === selected ? boxes : boxes.slice(0, 1)) {
        const key = `${place}/${turn}`;
        drawn.add(key);
        if (!this.marks.has(key)) this.marks.set(key, this.mark());
        const kind = [rollout.right ? "right" : "wrong", usable ? "" : "unusable", place === selected ? "selected" : ""];
        this.place(this.marks.get(key), box, kind);
        if (place === selected && this.svg.lastChild !== this.marks.get(key)) this.svg.append(this.marks.get(key));
      }
    });
    for (const [key, mark] of this.marks) mark.classList.toggle("gone", !drawn.has(key));
    this.svg.classList.toggle("choosing", selected >= 0);
    const { count, right } = tally(rollouts);
    const unusable = rollouts.filter((r) => r.valid_box === false).length;
    const boxes = plural(drawn.size, "box", "boxes");
    this.svg.setAttribute("aria-label", `${boxes}; ${right} of ${count} right, ${unusable} without a usable box`);
  }

  mark() {
    const cross = el("path", { d: `M0 0 l${this.unit * 3} ${this.unit * 3} m0 ${-this.unit * 3} l${-this.unit * 3} ${this.unit * 3}` });
    const mark = el("g", {}, el("rect", { class: "halo" }), el("rect", { class: "line" }), cross);
    this.svg.append(mark);
    return mark;
  }

  place(mark, box, kind) {
    const [width, height] = this.size;
    const edge = (a, b, side) => [clamp(Math.min(a, b), 0, side), clamp(Math.max(a, b), 0, side)];
    const [[left, right], [top, bottom]] = [edge(box[0], box[2], width), edge(box[1], box[3], height)];
    const [wide, high] = [Math.max(right - left, this.unit), Math.max(bottom - top, this.unit)];
    const [x, y] = [Math.min(left, width - wide), Math.min(top, height - high)];
    for (const rect of mark.querySelectorAll("rect")) {
      for (const [name, value] of Object.entries({ x, y, width: wide, height: high })) rect.setAttribute(name, value);
    }
    mark.lastChild.style.transform = `translate(${x + this.unit}px, ${y + this.unit}px)`;
    mark.setAttribute("class", kind.filter(Boolean).join(" "));
  }
}

/** Shares over the steps: the first line drawn through, the second dashed; a rule stands at the current step. */
function chart(title, lines, steps, current) {
  if (steps.length < 2) return [];
  const [width, height, left, right, top, bottom] = [280, 92, 26, 8, 8, 18];
  const span = steps.at(-1) - steps[0];
  const values = lines.flatMap((line) => line.values).filter((value) => value !== null);
  const [low, high] = [Math.min(0, ...values), Math.max(1, ...values)];
  const x = (step) => left + ((step - steps[0]) / span) * (width - left - right);
  const y = (value) => height - bottom - ((value - low) / (high - low)) * (height - top - bottom);
  const label = lines.map(({ name, values }) => `${name} ${values.map((v) => v?.toFixed(2) ?? "none").join(", ")}`);
  const image = el("svg", {
    viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title} at steps ${steps.join(", ")}: ${label.join("; ")}`,
  });
  for (const value of [low, high]) {
    image.append(el("line", { class: "axis", x1: left, x2: width - right, y1: y(value), y2: y(value) }));
    image.append(el("text", { x: left - 5, y: y(value) + 3.5, "text-anchor": "end" }, String(+value.toFixed(2))));
  }
  image.append(el("line", { class: "now", x1: x(current), x2: x(current), y1: top - 4, y2: height - bottom }));
  [steps[0], steps.at(-1)].forEach((step, end) => {
    image.append(el("text", { x: x(step), y: height - 4, "text-anchor": end ? "end" : "start" }, `step ${step}`));
  });
  lines.forEach(({ values }, place) => {
    const points = steps.flatMap((step, i) => (values[i] === null ? [] : [[x(step), y(values[i]), step]]));
    const path = points.map(([px, py]) => `${px.toFixed(1)} ${py.toFixed(1)}`).join("L");
    if (path) image.append(el("path", { class: `series-${place}`, d: `M${path}` }));
    for (const [cx, cy, step] of points.filter(([, , step]) => step === current)) {
      image.append(el("circle", { class: `series-${place}`, cx, cy, r: 3.5 }));
    }
  });
  const names = lines.map(({ name }, place) => el("span", { class: `key key-${place}` }, name));
  return [image, el("p", { class: "chart-key" }, ...names)];
}
