// What a decoder keeps (sitekit/parts/calculator.py): the sum of full, windowed, latent, compressed and constant parts.

const UNITS = [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]]
const STATE_BYTES = 4

// Bytes as sitekit/pieces/cache.py writes them
const size = (count) => {
  if (!count) return "–"
  const [unit, name] = UNITS.find(([unit]) => count >= unit * 0.9995) ?? [1, "B"]
  const value = count / unit
  const digits = unit === 1 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2
  return `${value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })} ${name}`
}

// Numbers that one layer keeps of each token, entry or sequence
const NUMBERS = {
  full: ({ heads, key, value }) => heads * (key + value),
  window: ({ heads, key, value }) => heads * (key + value),
  latent: ({ rank, rotated }) => rank + rotated,
  index: ({ width }) => width,
  compressed: ({ width }) => width,
  state: ({ heads, key, value }) => heads * key * value,
}

// Bytes of one sequence: what each token adds, what no token adds to, and both at so many tokens
const kept = (kind, sizes, bytes, tokens) => {
  const numbers = sizes.layers * NUMBERS[kind](sizes)
  if (kind === "state") return { grows: 0, constant: numbers * STATE_BYTES, all: numbers * STATE_BYTES }
  if (kind === "window") {
    const held = Math.min(tokens, sizes.window)
    return { grows: 0, constant: numbers * sizes.window * bytes, all: numbers * held * bytes }
  }
  const every = sizes.every ?? 1
  return { grows: (numbers * bytes) / every, constant: 0, all: numbers * bytes * Math.floor(tokens / every) }
}

for (const form of document.querySelectorAll(".atlas-calculator form")) {
  const presets = JSON.parse(form.dataset.presets)
  const kinds = [...form.querySelectorAll("fieldset")]
  const field = (name) => form.elements[name].valueAsNumber || Number(form.elements[name].value)

  const choose = () => {
    const rows = [...presets[form.elements.model.value]]
    for (const box of kinds) {
      const [kind] = box.dataset.kind.split(" ")
      const place = rows.findIndex((row) => row.kind === kind)
      const [row] = place < 0 ? [{}] : rows.splice(place, 1)
      for (const input of box.querySelectorAll("input")) input.value = row[input.name] ?? input.defaultValue
    }
  }

  const compute = () => {
    if (!form.checkValidity()) return
    const total = { grows: 0, constant: 0, all: 0 }
    for (const box of kinds) {
      const sizes = Object.fromEntries([...box.querySelectorAll("input")].map((input) => [input.name, input.valueAsNumber]))
      const [kind] = box.dataset.kind.split(" ")
      const part = kept(kind, sizes, field("bytes"), field("context"))
      box.querySelector("output").value = size(part.all * field("batch"))
      box.toggleAttribute("data-empty", !part.all)
      for (const key in total) total[key] += part[key]
    }
    const totals = { cache: total.grows, "fixed part": total.constant, sum: total.all * field("batch") }
    for (const cell of form.querySelectorAll("[data-total]")) cell.textContent = size(totals[cell.dataset.total])
  }

  form.addEventListener("input", (event) => {
    if (event.target.name === "model") choose()
    compute()
  })
  form.addEventListener("submit", (event) => event.preventDefault())
  choose()
  compute()
}
