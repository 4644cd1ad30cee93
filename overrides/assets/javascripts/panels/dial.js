// One, two or three settings, and what the module does at each stop.
import { element, largest, picture, short } from "./parts.js"

// Numbers as bars, the highest of which is as high as the box unless the field has a top
const bars = (field, labels) => {
  const made = labels.map((label) => element("span", {}, element("i"), label))
  const top = element("small")
  const box = element("div", { class: "atlas-chart", role: "img", "aria-label": field.title }, top, ...made)
  const show = (values) => {
    const most = field.top || largest(values)
    made.forEach((bar, place) => bar.style.setProperty("--share", values[place] / most))
    top.textContent = short(most)
  }
  return { figure: element("figure", {}, element("figcaption", {}, field.title), box), show }
}

const slider = ({ name, values, start }, turned) => {
  const input = element("input", { type: "range", min: 0, max: values.length - 1, value: start })
  const reading = element("output", {}, values[start])
  input.addEventListener("input", () => {
    reading.textContent = input.ariaValueText = values[input.valueAsNumber]
    turned(input.valueAsNumber)
  })
  input.ariaValueText = values[start]
  return element("label", { class: "atlas-dial" }, element("span", {}, name), input, reading)
}

export default (form, { sliders, fields, labels }) => {
  const views = fields.map((field) => ({ field, ...(field.height > 1 ? picture(field) : bars(field, labels)) }))
  for (const { field, figure } of views) figure.classList.toggle("atlas-wide", field.width === labels.length)
  const stops = sliders.map(({ start }) => start)
  const show = () => views.forEach(({ field, show }) => show(field.at(...stops)))
  const dials = sliders.map((one, number) => slider(one, (stop) => ((stops[number] = stop), show())))
  form.append(...dials, element("div", { class: "atlas-fields" }, ...views.map(({ figure }) => figure)))
  show()
}
