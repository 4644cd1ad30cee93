// Lets the reader choose the sizes of the comparison (sitekit/parts/comparison.py): parameters and multiply-adds
// are then computed from the formulas of the catalogue, which the build holds against what it counts.

import { formulas } from "./formulas.js"

const PREFIXES = [[1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]

// A count as sitekit/pieces/numbers.py writes it
const short = (count) => {
  if (count < 100000) return count.toLocaleString("en")
  const [size, prefix] = PREFIXES.find(([size]) => count >= size * 0.9995)
  const value = count / size
  return `${value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0)} ${prefix}`
}

// Sizes as sitekit/pieces/sizes.py writes them
const text = (sizes) => {
  const parts = []
  for (const [name, size] of sizes) {
    if (parts.at(-1)?.size === size) parts.at(-1).names.push(name)
    else parts.push({ names: [name], size })
  }
  return parts.map(({ names, size }) => [...names, size].join(" = ")).join(", ")
}

for (const part of document.querySelectorAll(".atlas-comparison")) {
  const table = part.querySelector("table")
  const rows = [...table.querySelectorAll("tr[data-slug]")].map((row) => ({
    cell: (key) => row.querySelector(`[data-key="${key}"]`),
    sizes: JSON.parse(row.dataset.sizes),
    fields: JSON.parse(row.dataset.fields),
    shown: row.dataset.shown.split(" "),
    formulas: formulas[row.dataset.slug],
  }))

  const form = part.querySelector(".atlas-sizes")

  const chosen = (field, size) => {
    const input = form.elements[field]
    return input?.value && input.validity.valid ? input.valueAsNumber : size
  }

  const KINDS = ["parameters", "macs"]

  const compute = () => {
    for (const { cell, sizes, fields, shown, formulas } of rows) {
      const at = Object.fromEntries(Object.entries(sizes).map(([name, size]) => [name, chosen(fields[name], size)]))
      const counts = KINDS.map((kind) => formulas[kind](at))
      const divides = counts.every((count) => Math.abs(count - Math.round(count)) <= 1e-9 * Math.max(1, count))
      KINDS.forEach((kind, place) => {
        const count = Math.round(counts[place])
        const box = cell(kind)
        box.textContent = divides ? short(count) : "–"
        box.title = divides ? count.toLocaleString("en") : part.dataset.indivisible
        box.dataset.sort = divides ? count : -1
      })
      const named = Object.entries(at).filter(([name, size]) => shown.includes(name) || size !== sizes[name])
      cell("at sizes").textContent = text(named)
    }
    part.dispatchEvent(new Event("computed"))
  }

  // The address brings sizes, from a table of costs or from another reader, and keeps those that are chosen
  const keep = () => {
    const set = [...form.elements].filter((input) => input.name && input.value !== input.defaultValue)
    const query = new URLSearchParams(set.map((input) => [input.name, input.value]))
    history.replaceState(null, "", `${location.pathname}${set.length ? `?${query}` : ""}${location.hash}`)
  }
  const brought = [...new URLSearchParams(location.search)].filter(([name]) => form.elements[name])
  for (const [name, size] of brought) form.elements[name].value = size
  if (brought.length) compute()

  form.addEventListener("input", () => {
    compute()
    keep()
  })
  form.addEventListener("submit", (event) => event.preventDefault())
  form.addEventListener("reset", () => setTimeout(() => (compute(), keep()))) // the fields change after the event
}
