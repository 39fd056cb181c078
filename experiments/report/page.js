"use strict";

// ---- sorting: a click on a heading; a second one turns the order around. Rows without a value come last ----

const valueOf = (row, column) => {
  const cell = row.cells[column];
  if (cell.dataset.value !== undefined) return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  return cell.textContent.trim() || null;
};

const compare = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }));

for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th");
    const body = heading.closest("table").tBodies[0];
    const column = heading.cellIndex;
    const rows = [...body.rows];
    const present = rows.filter((row) => valueOf(row, column) !== null);
    const first = present.some((row) => typeof valueOf(row, column) === "number") ? "descending" : "ascending";
    const other = first === "descending" ? "ascending" : "descending";
    const order = heading.getAttribute("aria-sort") === first ? other : first;
    const sign = order === "ascending" ? 1 : -1;
    present.sort((a, b) => sign * compare(valueOf(a, column), valueOf(b, column)));
    body.append(...present, ...rows.filter((row) => valueOf(row, column) === null));
    for (const each of heading.parentElement.cells) {
      if (each.hasAttribute("aria-sort")) each.setAttribute("aria-sort", each === heading ? order : "none");
    }
  });
}

// ---- details of a number: on hover and on focus for as long as it lasts; a click or Enter keeps them open ----

const { runs, notes } = JSON.parse(document.getElementById("data").textContent);
const panel = document.getElementById("details");
const content = document.getElementById("content");
let owner = null;
let kept = false;
let leaving = 0;

const element = (name, text, ...children) => {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
};

const numbers = (text) => (text ? text.split(" ").map(Number) : []);

const fill = (button) => {
  const cell = button.parentElement;
  const table = cell.closest("table");
  const heading = table.tHead.rows[0].cells[cell.cellIndex].innerText.trim();
  const facts = element("dl");
  const fact = (name, value) => facts.append(element("dt", name), element("dd", value));
  const row = cell.parentElement.cells[0];
  if (row.title) fact("method", row.title);
  for (const seed of (cell.dataset.seeds || "").split(" ").filter(Boolean)) {
    const [number, value] = seed.split(":");
    fact(number === "0" ? "without seed" : `seed ${number}`, value);
  }
  if (cell.dataset.published) fact("published", cell.dataset.published);
  for (const note of numbers(cell.dataset.notes)) fact("note", notes[note]);
  const list = element("ol");
  for (const number of numbers(cell.dataset.runs)) {
    const [folder, command] = runs[number];
    const item = element("li", "", element("code", folder));
    if (command) item.append(element("pre", command));
    list.append(item);
  }
  const more = Number(cell.dataset.more || 0);
  content.replaceChildren(
    element("h3", `${row.innerText.trim()}, ${heading}: ${button.querySelector(".mean").innerText}`),
    facts,
    list,
    ...(more ? [element("p", `and ${more} more, see the tables of the single datasets`)] : []),
  );
};

const place = (button) => {
  const at = button.getBoundingClientRect();
  const size = panel.getBoundingClientRect();
  const below = at.bottom + size.height < innerHeight || at.top < size.height;
  panel.style.left = `${Math.max(8, Math.min(at.left, innerWidth - size.width - 16))}px`;
  panel.style.top = `${below ? Math.min(at.bottom, Math.max(8, innerHeight - size.height - 8)) : at.top - size.height}px`;
};

const hide = () => {
  clearTimeout(leaving);
  panel.hidden = true;
  owner?.setAttribute("aria-expanded", "false");
  owner = null;
  kept = false;
};

const show = (button, keep) => {
  clearTimeout(leaving);
  if (owner !== button) {
    hide();
    owner = button;
    fill(button);
    panel.hidden = false;
    panel.scrollTop = 0;
    button.setAttribute("aria-expanded", "true");
    place(button);
  }
  kept = kept || keep;
};

const leave = () => {
  clearTimeout(leaving);
  if (!kept) leaving = setTimeout(hide, 250);
};

for (const button of document.querySelectorAll("td.cell button")) {
  // Not pointerenter, which also comes when a panel closes, or the page scrolls, under a mouse at rest
  button.addEventListener("pointermove", (event) => {
    if (event.pointerType === "mouse" && !kept) show(button, false);
  });
  button.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && leave());
  button.addEventListener("focus", () => button.matches(":focus-visible") && show(button, false));
  button.addEventListener("blur", leave);
  button.addEventListener("click", (event) => {
    show(button, true);
    if (event.detail === 0) panel.focus(); // a key: the panel scrolls with the arrows, Escape leads back
  });
}

panel.addEventListener("pointerenter", () => clearTimeout(leaving));
panel.addEventListener("pointerleave", leave);
document.getElementById("close").addEventListener("click", () => {
  const back = owner;
  hide();
  back?.focus({ preventScroll: true });
  hide();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || panel.hidden) return;
  const back = panel.contains(document.activeElement) ? owner : null;
  hide();
  back?.focus();
  hide();
});
document.addEventListener("pointerdown", (event) => {
  if (!panel.contains(event.target) && !owner?.contains(event.target)) hide();
});

// Paper has no folded sections
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => (each.open = true)));
