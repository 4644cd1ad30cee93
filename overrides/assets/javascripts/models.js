// Sets two model families side by side (sitekit/parts/models.py): what their rows of the table say.

import { element, fill } from "./panels/parts.js"

for (const part of document.querySelectorAll(".atlas-models")) {
  const form = part.querySelector(".atlas-two")
  const inputs = [...form.querySelectorAll("input")]
  const place = part.querySelector(".atlas-beside")
  const { layers, only, both, separator } = part.dataset
  const heads = [...part.querySelectorAll(":scope > .atlas-table thead th")].slice(1, 4).map((head) => head.textContent.replace(/ .$/, ""))

  const read = (row) => ({
    name: row.dataset.names,
    figures: [1, 2, 3].map((column) => row.cells[column].textContent || "–"),
    layers: row.querySelector(".atlas-summary")?.textContent ?? "–",
    uses: [...row.querySelectorAll("[data-uses]")].map((cell) => cell.dataset.label),
  })

  const line = (name, cells, attributes = {}) =>
    element("tr", {}, element("th", { scope: "row" }, name), ...cells.map((text) => element("td", attributes, text)))
  const span = (name, words) => line(name, [words.join(separator) || "–"], { colspan: 2 })

  const show = () => {
    const rows = inputs.map((input) => part.querySelector(`tr[data-slug="${CSS.escape(input.value.trim())}"]`))
    inputs.forEach((input, index) => input.setAttribute("aria-invalid", !rows[index]))
    if (!rows.every(Boolean)) return
    const [left, right] = rows.map(read)
    const names = [left, right].map(({ name }) => element("th", { scope: "col" }, name))
    const lines = [
      ...heads.map((name, index) => line(name, [left.figures[index], right.figures[index]])),
      line(layers, [left.layers, right.layers]),
      span(both, left.uses.filter((name) => right.uses.includes(name))),
      span(fill(only, left), left.uses.filter((name) => !right.uses.includes(name))),
      span(fill(only, right), right.uses.filter((name) => !left.uses.includes(name))),
    ]
    const head = element("thead", {}, element("tr", {}, element("td"), ...names))
    const table = element("table", { class: "atlas-pair" }, head, element("tbody", {}, ...lines))
    place.replaceChildren(element("div", { class: "atlas-table", tabindex: 0 }, table))
  }

  form.addEventListener("input", show)
  form.addEventListener("submit", (event) => event.preventDefault())
  show()
}
