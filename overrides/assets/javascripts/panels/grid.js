// A matrix of weights between tokens. What the chosen row reads stands above it, who reads the chosen column beside it.
import { element, fill, largest, movable, picture, said, short } from "./parts.js"

const line = (kind, side, parts) => element("div", { class: `atlas-${kind} atlas-${side}`, "aria-hidden": "true" }, ...parts)

export const grid = (field, rows, columns, words) => {
  const { figure, stage, show } = picture(field)
  const answer = said()
  const names = { left: rows, below: columns }, sides = { above: columns, right: rows }
  const labels = (side) => names[side].map((token) => element("span", {}, token))
  const bars = (side) => sides[side].map(() => element("i"))
  const parts = { left: labels("left"), below: labels("below"), above: bars("above"), right: bars("right") }
  let values, seen, at

  const say = () => {
    const [row, column] = at
    const number = (t, s) => values[t * columns.length + s]
    const most = largest(values) || 1
    parts.above.forEach((bar, s) => bar.style.setProperty("--share", number(row, s) / most))
    parts.right.forEach((bar, t) => bar.style.setProperty("--share", number(t, column) / most))
    parts.left.forEach((label, t) => label.classList.toggle("atlas-chosen", t === row))
    parts.below.forEach((label, s) => label.classList.toggle("atlas-chosen", s === column))
    const sentence = seen(row * columns.length + column) ? words.reads : words.hidden
    answer.textContent = fill(sentence, { row: rows[row], column: columns[column], number: short(number(row, column)) })
  }

  const update = (next, allowed) => {
    values = next
    seen = allowed ? (place) => allowed[place] > 0 : () => true
    show(values, seen)
    if (at) return say()
    const last = values.subarray(-columns.length)
    const start = [rows.length - 1, last.indexOf(largest(last))]
    movable(stage, words.cell, [rows.length, columns.length], start, (...to) => {
      at = to
      say()
    })
  }

  const box = element("div", { class: "atlas-pairs" })
  stage.replaceWith(box)
  box.append(line("bars", "above", parts.above), line("names", "left", parts.left), stage)
  box.append(line("bars", "right", parts.right), line("names", "below", parts.below))
  return { figure, answer, update }
}
