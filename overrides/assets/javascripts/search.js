// The search field in the header and what it finds. Ranking and index are fetched when a reader turns to it.

const part = document.querySelector(".atlas-search");
const field = part.querySelector("input");
const status = part.querySelector("[role=status]");
const list = part.querySelector("[role=listbox]");
const toggle = document.getElementById("__search"); // the style sheet of the theme opens and closes by it
const index = new URL(part.dataset.index, location);
const say = JSON.parse(part.dataset.words);
const SHOWN = 20;

let loading = null;
function load() {
  loading ??= import("./ranking.js").then(async (ranking) => ({ ...ranking, pages: await ranking.load(index) }));
  loading.catch(() => (loading = null)); // the next key tries again
  return loading;
}

async function answer() {
  if (!field.value.trim()) return show([], say.prompt);
  try {
    const { pages, search, snippet } = await load();
    const { found, words, ...rest } = search(pages, field.value);
    const options = found.slice(0, SHOWN).map((result) => option(result, snippet(result.section[2], words)));
    show(options, explain(found.length, rest));
  } catch {
    show([], say.failed);
  }
}

function explain(count, { corrected, missing, fit }) {
  if (missing.length) return say.missing.replace("{words}", missing.join(" "));
  if (corrected) return say.corrected.replace("{words}", corrected);
  return say[fit].replace("{count}", count);
}

function option({ page, section: [id, heading] }, text) {
  const link = document.createElement("a");
  link.className = "md-search-result__link";
  link.setAttribute("role", "option");
  link.tabIndex = -1;
  link.href = new URL(`./${page.url}${id && `#${id}`}`, index);
  const title = element("strong", page.title);
  const place = element("small", [page.place, id && heading].filter(Boolean).join(" › "));
  const excerpt = element("p", ...text.map(([words, marked]) => (marked ? element("mark", words) : words)));
  link.append(title, place, excerpt);
  return link;
}

function element(name, ...content) {
  const made = document.createElement(name);
  made.append(...content);
  return made;
}

function show(options, text) {
  options.forEach((link, place) => (link.id = `atlas-found-${place}`));
  list.replaceChildren(...options);
  status.textContent = text;
  field.setAttribute("aria-expanded", options.length > 0);
  choose(null);
}

function choose(link) {
  for (const other of list.children) other.setAttribute("aria-selected", other === link);
  if (link) field.setAttribute("aria-activedescendant", link.id);
  else field.removeAttribute("aria-activedescendant");
  link?.scrollIntoView({ block: "nearest" });
}

function open(wanted = true) {
  if (toggle.checked !== wanted) toggle.click();
}

const keys = {
  ArrowDown: (links, place) => choose(links[(place + 1) % links.length]),
  ArrowUp: (links, place) => choose(links.at(place < 0 ? -1 : place - 1)),
  Enter: (links, place) => links[Math.max(place, 0)]?.click(),
  Escape: () => {
    field.blur();
    open(false);
  },
};

field.addEventListener("keydown", (event) => {
  if (event.key === "Tab") open(false);
  if (!(event.key in keys) || event.isComposing) return;
  event.preventDefault();
  const links = [...list.children];
  keys[event.key](links, links.findIndex((link) => link.ariaSelected === "true"));
});
field.addEventListener("focus", () => {
  open();
  answer();
});
field.addEventListener("input", answer);
field.form.addEventListener("submit", (event) => event.preventDefault());
field.form.addEventListener("reset", () => {
  field.focus();
  show([], say.prompt);
});
list.addEventListener("click", () => open(false)); // the link may lead into this page
toggle.addEventListener("change", () => (toggle.checked ? field.focus() : show([], say.prompt)));

addEventListener("keydown", (event) => {
  if (!["/", "s", "f"].includes(event.key) || event.metaKey || event.ctrlKey || event.altKey) return;
  if (event.target.closest?.("input, select, textarea, [contenteditable]")) return;
  event.preventDefault();
  field.focus();
});

// Text that is there without a key: a link to a search, or what the browser has kept
field.value ||= new URLSearchParams(location.search).get("q") ?? "";
if (field.value) field.focus();
