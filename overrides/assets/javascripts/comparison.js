// Sorts and filters the comparison of all mechanisms (sitekit/parts/comparison.py). Without it the table stays plain.

for (const part of document.querySelectorAll(".atlas-comparison")) {
  const table = part.querySelector("table");
  const headers = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const language = document.documentElement.lang;

  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.sort ?? cell.textContent.trim();
  };

  // Sorting: the headers become buttons

  const sort = (column, descending) => {
    const compare = new Intl.Collator(language, { numeric: true }).compare;
    const sign = descending ? -1 : 1;
    const sorted = [...rows].sort((a, b) => sign * compare(value(a, column), value(b, column)));
    body.append(...sorted);
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
    button.addEventListener("click", () => sort(column, header.getAttribute("aria-sort") === "ascending"));
    header.append(button);
  });

  part.addEventListener("computed", () => {
    const column = headers.findIndex((header) => header.hasAttribute("aria-sort"));
    if (column >= 0) sort(column, headers[column].getAttribute("aria-sort") === "descending");
  });

  // Filtering: a text field, a list for each of several columns, and one for evidence, of which a row may have more

  const controls = part.querySelector(".atlas-filter");
  const text = controls.querySelector("input");
  const status = controls.querySelector("output");
  const lists = [...controls.querySelectorAll("select")].map((list) => ({
    list,
    column: headers.findIndex((header) => header.dataset.key === list.name),
  }));

  const has = (row, column, wanted) =>
    column < 0 ? Boolean(row.querySelector(`[data-evidence="${wanted}"]`)) : value(row, column) === wanted;

  const filter = () => {
    const words = text.value.toLocaleLowerCase(language).split(/\s+/);
    for (const row of rows) {
      const name = `${row.cells[0].textContent} ${row.dataset.names}`.toLocaleLowerCase(language);
      const named = words.every((word) => name.includes(word));
      row.hidden = !(named && lists.every(({ column, list }) => !list.value || has(row, column, list.value)));
    }
    const shown = rows.filter((row) => !row.hidden).length;
    status.value = part.dataset.shown.replace("{shown}", shown).replace("{all}", rows.length);
  };

  controls.addEventListener("input", filter);
  controls.addEventListener("submit", (event) => event.preventDefault());
}
