// The button that chooses the colours: as the system, light, dark. The first choice is made in the page itself
// (overrides/partials/javascripts/palette.html), before anything is painted.
{
  const button = document.querySelector(".atlas-colours")
  const options = [...button.children]
  const chosen = () => options.find((option) => option.dataset.scheme === (__md_get("__colours") ?? "")) ?? options[0]

  const show = () => {
    const option = chosen()
    __atlas_colours(option.dataset.scheme)
    for (const other of options) other.hidden = other !== option
    button.title = option.dataset.name
    button.ariaLabel = option.dataset.name
  }

  button.addEventListener("click", () => {
    const next = options[(options.indexOf(chosen()) + 1) % options.length]
    __md_set("__colours", next.dataset.scheme)
    show()
  })
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show)
  show()
  button.hidden = false
}
