// Masks that are switched on and off, and who reads whom under all that are on.
import { switches } from "./parts.js"
import { grid } from "./grid.js"

export default (form, { tokens, switches: names, on, fields: [weights, allowed] }, words) => {
  const { figure, answer, update } = grid(weights, tokens, tokens, words)
  const show = (chosen) => update(weights.at(...chosen), allowed.at(...chosen))
  form.append(switches(words.masks, names, on, show), figure, answer)
  show(on.map(Number))
}
