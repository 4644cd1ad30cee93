// Sets two model families side by side (sitekit/parts/models.py): what their rows of the table say.

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

  const line = (name, cells) => {
    const row = document.createElement("tr")
    const head = document.createElement("th")
    head.scope = "row"
    head.textContent = name
    row.append(head)
    for (const text of cells) row.insertCell().textContent = text
    return row
  }

  const span = (name, words) => {
    const row = line(name, [words.join(separator) || "–"])
    row.cells[1].colSpan = 2
    return row
  }

  const show = () => {
    const rows = inputs.map((input) => part.querySelector(`tr[data-slug="${CSS.escape(input.value.trim())}"]`))
    inputs.forEach((input, index) => input.setAttribute("aria-invalid", !rows[index]))
    if (!rows.every(Boolean)) return
    const [left, right] = rows.map(read)
    const table = document.createElement("table")
    table.className = "atlas-pair"
    const names = table.createTHead().insertRow()
    names.insertCell()
    for (const name of [left.name, right.name]) {
      const head = document.createElement("th")
      head.scope = "col"
      head.textContent = name
      names.append(head)
    }
    table.createTBody().append(
      ...heads.map((name, index) => line(name, [left.figures[index], right.figures[index]])),
      line(layers, [left.layers, right.layers]),
      span(both, left.uses.filter((name) => right.uses.includes(name))),
      span(only.replace("{name}", left.name), left.uses.filter((name) => !right.uses.includes(name))),
      span(only.replace("{name}", right.name), right.uses.filter((name) => !left.uses.includes(name))),
    )
    const box = document.createElement("div")
    box.className = "atlas-table"
    box.tabIndex = 0
    box.append(table)
    place.replaceChildren(box)
  }

  form.addEventListener("input", show)
  form.addEventListener("submit", (event) => event.preventDefault())
  show()
}
