// Pictures behind gates; a gate that is off lets everything pass.
import { choice, element, picture, short, switches } from "./parts.js"

export default (form, { pictures, gates, fields, numbers }, words) => {
  const views = fields.map((field) => ({ field, ...picture(field) }))
  const values = gates.map(() => element("output"))
  const names = gates.map((gate, number) => element("span", {}, `${gate} `, values[number]))
  let chosen = 0, on = gates.map(() => 1)
  const show = () => {
    views.forEach(({ field, show }) => show(field.at(chosen, ...on)))
    numbers[chosen]?.forEach((number, gate) => (values[gate].textContent = on[gate] ? short(number) : "1"))
  }
  form.append(
    choice(words.picture, pictures, (number) => ((chosen = number), show())),
    switches(words.gates, names, on, (all) => ((on = all), show())),
    element("div", { class: "atlas-fields" }, ...views.map(({ figure }) => figure)),
  )
  show()
}
