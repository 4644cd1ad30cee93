// Who reads whom, in one of several heads.
import { choice } from "./parts.js"
import { grid } from "./grid.js"

export default (form, { rows, columns, fields }, words) => {
  const { figure, answer, update } = grid(fields[0], rows, columns, words)
  const title = figure.querySelector("figcaption")
  const show = (head) => {
    title.textContent = fields[head].title
    update(fields[head].at())
  }
  if (fields.length > 1) form.append(choice(words.choice, fields.map(({ title }) => title), show))
  form.append(figure, answer)
  show(0)
}
