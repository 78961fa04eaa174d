// What pages are made of: elements, words for figures and times, tables. Text is set as text, never as HTML.

export const byId = (id) => document.getElementById(id);

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") made.className = value;
    else if (value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}
// Amounts are told to the last nano-dollar, but what is below a hundredth of a cent does not catch the eye.
const FINE = /(\$\d+\.\d{4})(\d+)/g;
export function setText(node, said) {
  const text = String(said);
  if (node.textContent === text) return;
  const made = [];
  let at = 0;
  for (const found of text.matchAll(FINE)) {
    made.push(text.slice(at, found.index) + found[1], el("span", { class: "fine" }, found[2]));
    at = found.index + found[0].length;
  }
  node.replaceChildren(...made, text.slice(at));
}
export const show = (name, text) => {
  for (const node of document.querySelectorAll(`[data-fig="${name}"]`)) {
    setText(node, text);
    const seen = text.replace(FINE, "$1").length;
    node.classList.toggle("amount", text.startsWith("$") && seen <= 8);
    node.classList.toggle("small", seen > 8);
  }
};
export const dollars = (text) => (text === null || text === undefined ? "" : (text.startsWith("-") ? `-$${text.slice(1)}` : `$${text}`));
export const share = (value) => `${Math.round(value * 100)} %`;
export const sign = (condition, text) => (condition ? text : "");

export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}
export function clock(text) {
  if (!text) return "";
  const at = new Date(text);
  const today = new Date().toDateString() === at.toDateString();
  return today ? at.toLocaleTimeString() : at.toLocaleString();
}
export const since = (text, now) => (text ? `${span((new Date(now) - new Date(text)) / 1000)} ago` : "");
export const until = (text, now) => (text ? `in ${span((new Date(text) - new Date(now)) / 1000)}` : "");
export const pill = (word) => ({ pill: word });
export const sessionLink = (id) => ({ link: `#session/${id}`, text: id });

// A table keeps its rows from one look to the next, so that focus and selection stay where they are. On a phone a wide
// one is laid out row by row (see the styles), which would take its roles away; so they are said.
export function fill(table, columns, rows, nothing) {
  if (!table.tHead) {
    table.classList.toggle("wide", columns.length > 3);
    table.setAttribute("role", "table");
    const head = table.createTHead().insertRow();
    head.setAttribute("role", "row");
    for (const [title, kind] of columns) head.append(el("th", { scope: "col", role: "columnheader", class: kind || "" }, title));
    table.append(el("tbody", { role: "rowgroup" }));
  }
  const body = table.tBodies[0];
  const known = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  let place = 0;
  for (const { key, cells } of rows.length ? rows : [{ key: "", cells: null }]) {
    let row = known.get(String(key));
    if (!row) {
      row = el("tr", { "data-key": String(key), role: "row" });
      if (cells === null) {
        row.className = "empty";
        row.append(el("td", { colspan: columns.length, role: "cell" }, nothing));
      } else for (const [title, kind] of columns) row.append(el("td", { class: kind || "", role: "cell", "data-label": title }));
    }
    known.delete(String(key));
    if (body.rows[place] !== row) body.insertBefore(row, body.rows[place] || null);
    place += 1;
    (cells || []).forEach((cell, i) => put(row.cells[i], cell));
  }
  for (const row of known.values()) row.remove();
  reach(table.closest(".card"));
}
// What is wider than its card can be scrolled by keyboard, too.
export function reach(card) {
  if (!card) return;
  if (card.scrollWidth <= card.clientWidth + 1) { for (const name of ["tabindex", "role", "aria-label"]) card.removeAttribute(name); return; }
  const name = card.querySelector("caption, h3");
  for (const [key, value] of [["tabindex", "0"], ["role", "group"], ["aria-label", name ? name.textContent : ""]]) card.setAttribute(key, value);
}
function put(node, cell) {
  const said = JSON.stringify(cell ?? "");
  if (node.dataset.said === said) return;
  node.dataset.said = said;
  if (typeof cell !== "object" || cell === null) setText(node, cell ?? "");
  else if (cell.link) {
    const old = node.firstElementChild;
    if (old && old.tagName === "A") { old.href = cell.link; setText(old, cell.text); }
    else node.replaceChildren(el("a", { href: cell.link }, cell.text));
  } else node.replaceChildren(el("span", { class: "pill" }, el("i", { class: `c-${cell.pill}` }), cell.pill));
}
