// Sorts and filters the comparison of all mechanisms (sitekit/parts/comparison.py) and the table of model families
// (sitekit/parts/models.py). Without it they stay plain.

for (const part of document.querySelectorAll(".atlas-comparison, .atlas-models")) {
  const table = part.querySelector("table");
  const headers = [...table.tHead.rows[0].cells];
  const rows = [...table.querySelectorAll("tr[data-slug]")];
  const language = document.documentElement.lang;

  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.sort ?? cell.textContent.trim();
  };

  // Sorting: the headers become buttons. Foundations stay apart; the names of the domains give way (parts.css)

  const sort = (column, descending) => {
    const compare = new Intl.Collator(language, { numeric: true }).compare;
    const sign = descending ? -1 : 1;
    const sorted = [...rows].sort((a, b) => sign * compare(value(a, column), value(b, column)));
    for (const body of table.tBodies) body.append(...sorted.filter((row) => row.parentElement === body));
    headers.forEach((header, place) => {
      if (place !== column) header.removeAttribute("aria-sort");
    });
    headers[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
  };

  headers.forEach((header, column) => {
    if (!header.matches(".atlas-sorts")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    const first = header.matches(".atlas-descends"); // what readers look for in this column is large, or there
    const next = { ascending: true, descending: false };
    button.addEventListener("click", () => sort(column, next[header.getAttribute("aria-sort")] ?? first));
    header.append(button);
  });

  part.addEventListener("computed", () => {
    const column = headers.findIndex((header) => header.hasAttribute("aria-sort"));
    if (column >= 0) sort(column, headers[column].getAttribute("aria-sort") === "descending");
  });

  // Filtering: a text field, and a list for each of several columns; a row may have several values of some

  const controls = part.querySelector(".atlas-filter:has([type=search])");
  const text = controls.querySelector("input");
  const status = controls.querySelector("output");
  const lists = [...controls.querySelectorAll("select")];

  const has = (row, { name, value }) => {
    if (!value) return true;
    if (["evidence", "uses"].includes(name)) return Boolean(row.querySelector(`[data-${name}="${value}"]`));
    return (row.dataset[name] ?? row.querySelector(`[data-key="${name}"]`).dataset.value) === value;
  };

  const filter = () => {
    const words = text.value.toLocaleLowerCase(language).split(/\s+/);
    for (const row of rows) {
      const name = `${row.cells[0].textContent} ${row.dataset.names}`.toLocaleLowerCase(language);
      row.hidden = !(words.every((word) => name.includes(word)) && lists.every((list) => has(row, list)));
    }
    let shown = false; // from below: a name stands above rows that are shown
    for (const row of [...table.querySelectorAll("tbody tr")].reverse()) {
      if (row.dataset.slug) shown ||= !row.hidden;
      else [row.hidden, shown] = [!shown, false];
    }
    const count = rows.filter((row) => !row.hidden).length;
    status.value = part.dataset.shown.replace("{shown}", count).replace("{all}", rows.length);
  };

  // The address may bring choices
  const brought = new URLSearchParams(location.search);
  for (const list of lists.filter(({ name }) => brought.has(name))) list.value = brought.get(list.name);
  if (lists.some((list) => list.value)) filter();

  controls.addEventListener("input", filter);
  controls.addEventListener("submit", (event) => event.preventDefault());
}
