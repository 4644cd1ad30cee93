// What panels are made of.

export const element = (name, attributes = {}, ...children) => {
  const made = document.createElement(name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  made.append(...children)
  return made
}

// A sentence of sitekit/labels.py with its gaps filled
export const fill = (sentence, values) => sentence.replace(/{(\w+)}/g, (_, key) => values[key])

export const short = (number) => String(Number(number.toPrecision(2))).replace("-", "\u2212")

export const largest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0)

const paint = (canvas, field, values, top, seen = () => true) => {
  const context = canvas.getContext("2d")
  const image = context.createImageData(canvas.width, canvas.height)
  values.forEach((value, place) => {
    const share = field.root ? Math.sqrt(value / top) : value / top
    const shade = top === 0 ? field.zero : field.zero + Math.round(share * (field.zero ? 127 : 255))
    image.data.set(field.colours.subarray(3 * shade, 3 * shade + 3), 4 * place)
    image.data[4 * place + 3] = seen(place) ? 255 : 0
  })
  context.putImageData(image, 0, 0)
}

// A field with its title and the scale of its colours; `show` leaves out what is not `seen`
export const picture = (field) => {
  const canvas = element("canvas", { width: field.width, height: field.height, role: "img", "aria-label": field.title })
  const scale = element("canvas", { width: 64, height: 1, role: "presentation" })
  const low = element("span"), high = element("span")
  const bottom = field.zero ? -1 : 0
  const show = (values, seen) => {
    const most = field.top || largest(values)
    paint(canvas, field, values, most, seen)
    low.textContent = field.zero ? short(-most) : "0"
    high.textContent = short(most)
  }
  paint(scale, field, Array.from({ length: 64 }, (_, place) => bottom + ((1 - bottom) * place) / 63), 1)
  const stage = element("div", { class: "atlas-stage" }, canvas)
  const caption = element("figcaption", {}, field.title)
  const figure = element("figure", {}, caption, stage, element("div", { class: "atlas-scale" }, low, scale, high))
  return { figure, stage, show }
}

// A ring that marks a position of a stage
export const mark = (stage, height, width) => {
  const ring = element("span", { class: "atlas-point" })
  stage.append(ring)
  return (row, column) => {
    ring.style.top = `${(100 * (row + 0.5)) / height}%`
    ring.style.left = `${(100 * (column + 0.5)) / width}%`
  }
}

const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }

// Lets the reader choose a position of a stage by mouse, touch or arrow keys; `moved` is told once a frame
export const movable = (stage, label, [height, width], start, moved) => {
  let at = [-1, -1]
  const place = mark(stage, height, width)
  const move = (row, column, then = requestAnimationFrame) => {
    const to = [Math.min(Math.max(row, 0), height - 1), Math.min(Math.max(column, 0), width - 1)]
    if (to[0] === at[0] && to[1] === at[1]) return
    at = to
    then(() => {
      if (at !== to) return // it has moved on within this frame
      place(...at)
      moved(...at)
    })
  }
  const point = (event) => {
    const box = stage.getBoundingClientRect()
    move(
      Math.floor((height * (event.clientY - box.top)) / box.height),
      Math.floor((width * (event.clientX - box.left)) / box.width),
    )
  }
  stage.tabIndex = 0
  stage.setAttribute("role", "application")
  stage.setAttribute("aria-label", label)
  stage.addEventListener("pointerdown", point)
  stage.addEventListener("pointermove", point)
  stage.addEventListener("keydown", (event) => {
    const [down, right] = ARROWS[event.key] ?? []
    if (down === undefined) return
    event.preventDefault()
    move(at[0] + down, at[1] + right)
  })
  move(...start, (then) => then())
}

// Where a panel says in words what it shows
export const said = () => element("output", { "aria-live": "polite" })

const fieldset = (legend, labels) => element("fieldset", {}, element("legend", {}, legend), ...labels)

// One of several; `changed` is told its number
export const choice = (legend, options, changed) =>
  fieldset(
    legend,
    options.map((option, number) => {
      const input = element("input", { type: "radio", name: legend })
      input.checked = number === 0
      input.addEventListener("change", () => changed(number))
      return element("label", {}, input, option)
    }),
  )

// Switches that are on or off; `changed` is told all of them
export const switches = (legend, names, on, changed) => {
  const inputs = names.map(() => element("input", { type: "checkbox", role: "switch" }))
  const labels = names.map((name, number) => {
    inputs[number].checked = on[number]
    inputs[number].addEventListener("change", () => changed(inputs.map((input) => Number(input.checked))))
    return element("label", {}, inputs[number], name)
  })
  return fieldset(legend, labels)
}
