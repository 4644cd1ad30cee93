// Lets the reader choose the sizes of the comparison (sitekit/parts/comparison.py): parameters and multiply-adds
// are then computed from the formulas of the catalogue, which the build holds against what it counts.

import { formulas } from "./formulas.js"

const GROUPS = [
  { label: "B", has: (name) => name === "B" },
  { label: "C", has: (name) => name === "C" },
  { label: "H = W", has: (name) => name === "H" || name === "W" },
  { label: "T = S", has: (name, sizes) => (name === "T" || name === "S") && !("H" in sizes) },
  { label: "D = E = d", has: (name) => /^([DEd]|d_.*)$/.test(name) },
  { label: "heads", has: (name) => name === "heads" },
  { label: "r", has: (name) => name === "r", free: true }, // differs between mechanisms: each keeps its own
]
const PREFIXES = [[1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]

// A count as sitekit/parts/numbers.py writes it
const short = (count) => {
  if (count < 100000) return count.toLocaleString("en")
  const [size, prefix] = PREFIXES.find(([size]) => count >= size * 0.9995)
  const value = count / size
  return `${value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0)} ${prefix}`
}

// Sizes as sitekit/parts/sizes.py writes them
const text = (sizes) => {
  const parts = []
  for (const [name, size] of sizes) {
    if (parts.at(-1)?.size === size) parts.at(-1).names.push(name)
    else parts.push({ names: [name], size })
  }
  return parts.map(({ names, size }) => [...names, size].join(" = ")).join(", ")
}

const mostFrequent = (values) => {
  const count = (value) => values.filter((other) => other === value).length
  return values.reduce((best, value) => (count(value) > count(best) ? value : best), values[0])
}

for (const part of document.querySelectorAll(".atlas-comparison")) {
  const table = part.querySelector("table")
  const column = (key) => [...table.tHead.rows[0].cells].findIndex((header) => header.dataset.key === key)
  const rows = [...table.tBodies[0].rows].map((row) => ({
    row,
    sizes: JSON.parse(row.dataset.sizes),
    shown: row.dataset.shown.split(" "),
    formulas: formulas[row.dataset.slug],
  }))

  const form = document.createElement("form")
  form.className = "atlas-filter atlas-sizes"
  form.setAttribute("aria-label", part.dataset.choose)
  form.addEventListener("submit", (event) => event.preventDefault())
  form.append(`${part.dataset.choose} `)

  const fields = GROUPS.flatMap((group) => {
    const values = rows.flatMap(({ sizes }) =>
      Object.entries(sizes).flatMap(([name, size]) => (group.has(name, sizes) ? [size] : [])))
    if (!values.length) return []
    const label = document.createElement("label")
    const input = document.createElement("input")
    Object.assign(input, { type: "number", min: 1, max: 1e6, step: 1, inputMode: "numeric" })
    input.defaultValue = group.free ? "" : mostFrequent(values)
    input.addEventListener("input", () => compute())
    label.append(group.label, " ", input)
    form.append(label)
    return [{ ...group, input }]
  })

  const reset = document.createElement("button")
  reset.type = "button"
  reset.textContent = part.dataset.reset
  reset.addEventListener("click", () => {
    form.reset()
    compute()
  })
  form.append(reset)

  const chosen = (name, size, sizes) => {
    const field = fields.find((field) => field.has(name, sizes))
    return field && field.input.value && field.input.validity.valid ? field.input.valueAsNumber : size
  }

  const KINDS = ["parameters", "macs"]

  const compute = () => {
    for (const { row, sizes, shown, formulas } of rows) {
      const at = Object.fromEntries(Object.entries(sizes).map(([name, size]) => [name, chosen(name, size, sizes)]))
      const counts = KINDS.map((kind) => formulas[kind](at))
      const divides = counts.every((count) => Math.abs(count - Math.round(count)) <= 1e-9 * Math.max(1, count))
      KINDS.forEach((kind, place) => {
        const cell = row.cells[column(kind)]
        const count = Math.round(counts[place])
        cell.textContent = divides ? short(count) : "–"
        cell.title = divides ? count.toLocaleString("en") : part.dataset.indivisible
        cell.dataset.sort = divides ? count : -1
      })
      const named = Object.entries(at).filter(([name, size]) => shown.includes(name) || size !== sizes[name])
      row.cells[column("at sizes")].textContent = text(named)
    }
    part.dispatchEvent(new Event("computed"))
  }

  const place = table.closest(".atlas-table") ?? table
  place.before(form)
}
