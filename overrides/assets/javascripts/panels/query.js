// A point in a photograph, and its row of g(x) in each field.
import { element, fill, largest, mark, movable, picture, said, short } from "./parts.js"

export default (form, { photograph, fields, start }, words) => {
  const { height, width } = fields[0]
  const views = fields.map((field) => {
    const { figure, stage, show } = picture(field)
    const own = field.count > 1
    const place = own ? mark(stage, height, width) : () => {}
    const at = (row, column) => {
      const values = field.at(row * width + column)
      place(row, column)
      show(values)
      return `${field.title} ${short(largest(values))}`
    }
    return { figure, at }
  })
  const stage = element("div", { class: "atlas-stage" }, element("img", { src: photograph, alt: "" }))
  const answer = said()
  const title = element("figcaption", {}, words.query)
  form.append(
    element("div", { class: fields.length > 8 ? "atlas-fields atlas-many" : "atlas-fields" }, element("figure", { class: "atlas-asked" }, title, stage), ...views.map(({ figure }) => figure)),
    answer,
  )
  movable(stage, words.point, [height, width], start, (row, column) => {
    const numbers = views.map(({ at }) => at(row, column))
    answer.textContent = fill(words.at, { row: row + 1, column: column + 1 }) + numbers.join(words.comma)
  })
}
