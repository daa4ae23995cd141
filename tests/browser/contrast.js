// Returns what on the page is too pale, by WCAG 2.2 AA: text below 4.5:1 (3:1 where it is large), edges and marks of
// controls below 3:1. What is disabled is exempt there, and decoration without a meaning of its own is left out.
const faults = [];

function colourOf(text) {
  const canvas = (colourOf.canvas ??= new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true }));
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = text;
  canvas.fillRect(0, 0, 1, 1);
  const [red, green, blue, alpha] = canvas.getImageData(0, 0, 1, 1).data;
  return [red, green, blue, alpha / 255];
}

const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);

function groundOf(element) {
  const layers = [];
  for (let each = element; each; each = each.parentElement) {
    const colour = colourOf(getComputedStyle(each).backgroundColor);
    layers.push(colour);
    if (colour[3] === 1) break;
  }
  return layers.reduceRight((below, top) => over(top, below), [255, 255, 255, 1]);
}

function luminance([red, green, blue]) {
  const parts = [red, green, blue].map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
}

function ratio(one, other) {
  const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}

const isShown = (element) =>
  element.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && element.getClientRects().length > 0 &&
  !element.closest(".hidden, .skip, :disabled");

function check(what, front, ground, least) {
  const found = ratio(over(front, ground), ground);
  checked += 1;
  if (found < least) faults.push(`${what}: ${found.toFixed(2)} of ${least}`);
}

let checked = 0;
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  const text = walker.currentNode.data.trim();
  if (!text || !isShown(element) || element.closest("script, option")) continue;
  const style = getComputedStyle(element);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  check(`"${text.slice(0, 40)}"`, colourOf(style.color), groundOf(element), large ? 3 : 4.5);
}

for (const element of document.querySelectorAll("button, select, input, textarea, meter")) {
  if (!isShown(element)) continue;
  const style = getComputedStyle(element);
  const name = `the edge of ${element.id || element.textContent || element.tagName}`;
  const edge = colourOf(style.borderTopColor);
  const filled = ratio(groundOf(element), groundOf(element.parentElement)) >= 3;
  // A button without an edge is known by its text, which was checked; a checkbox is drawn by the browser.
  if (parseFloat(style.borderTopWidth) && edge[3] && !filled && element.type !== "checkbox") {
    check(name, edge, groundOf(element.parentElement), 3);
  }
  if (element.placeholder) {
    check("a placeholder", colourOf(getComputedStyle(element, "::placeholder").color), groundOf(element), 4.5);
  }
}

const accent = colourOf(getComputedStyle(document.documentElement).getPropertyValue("--accent"));
for (const element of document.querySelectorAll(".card, .bar, .tile, dialog[open], .said.user .text")) {
  check("the ring of the focus", accent, groundOf(element), 3);
}
for (const element of document.querySelectorAll("#plot .line")) {
  check("the plot", colourOf(getComputedStyle(element).stroke), groundOf(element.closest(".tile")), 3);
}
for (const element of document.querySelectorAll("select, input, textarea")) {
  if (isShown(element) && element.type !== "checkbox") {
    check(`what is in ${element.id}`, colourOf(getComputedStyle(element).color), groundOf(element), 4.5);
  }
}
return { faults, checked };
