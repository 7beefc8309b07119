// --- Siblings that intersect, and elements that leave the window sideways.
() => {
  const root = document.querySelector("dialog[open]") ?? document.body;
  const seen = (node) => node.checkVisibility() && !["SCRIPT", "DIALOG", "OPTION"].includes(node.tagName);
  const box = (node) => node.getBoundingClientRect();
  const said = (node) => `${node.tagName}.${node.className} ${node.textContent.slice(0, 30)}`;
  const found = [];
  for (const parent of [root, ...root.querySelectorAll("*")]) {
    if (!seen(parent) || parent.closest("svg, .picture, select")) continue;
    const children = [...parent.children].filter((node) => seen(node) && box(node).width && getComputedStyle(node).display !== "inline");
    children.forEach((a, i) => {
      const [ra, edge] = [box(a), document.documentElement.clientWidth];
      if (ra.left < -0.5 || ra.right > edge + 0.5) found.push(`outside: ${said(a)} ${ra.left} to ${ra.right}`);
      for (const b of children.slice(i + 1)) {
        const rb = box(b);
        const [x, y] = [Math.min(ra.right, rb.right) - Math.max(ra.left, rb.left), Math.min(ra.bottom, rb.bottom) - Math.max(ra.top, rb.top)];
        if (x > 0.5 && y > 0.5) found.push(`overlap: ${said(a)} | ${said(b)}`);
      }
    });
  }
  for (const node of [document.scrollingElement, root]) {
    if (node.scrollWidth > node.clientWidth) found.push(`scrolls sideways: ${node.tagName}`);
  }
  return found;
}
// --- [text, contrast ratio] of every visible text (WCAG 2.2, 1.4.3).
() => {
  const root = document.querySelector("dialog[open]") ?? document.body;
  const parse = (colour) => {
    const numbers = colour.match(/[\d.]+/g).map(Number);
    return { rgb: numbers.slice(0, 3), alpha: numbers[3] ?? 1 };
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const { rgb, alpha } = parse(getComputedStyle(at).backgroundColor);
      if (alpha === 1) return rgb;
      if (alpha > 0) throw new Error(`half-transparent ground under ${node.textContent}`);
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || !node.checkVisibility() || node.closest("script, style, option") || (root === document.body && node.closest("dialog"))) continue;
    const style = getComputedStyle(node);
    const [a, b] = [luminance(parse(node.closest("svg") ? style.fill : style.color).rgb), luminance(ground(node))];
    found.push([text, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]);
  }
  return found;
}
// --- Images and controls without an accessible name.
() => {
  const named = (node) =>
    node.closest("[aria-hidden=true]") || node.getAttribute("alt") || node.getAttribute("aria-label") || node.textContent.trim() ||
    node.labels?.[0]?.textContent.trim();
  return [...document.querySelectorAll("img, svg, button, a, input, select")]
    .filter((node) => node.checkVisibility() && !named(node))
    .map((node) => node.outerHTML.slice(0, 200));
}
