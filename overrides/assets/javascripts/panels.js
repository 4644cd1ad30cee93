// Panels (sitekit/pieces/panel.py): what one needs is fetched when the reader opens it, nothing before.

const fill = async (form) => {
  const { kind, source, words } = form.dataset
  const { read } = await import("./panels/read.js")
  const [{ default: show }, panel] = await Promise.all([
    import(`./panels/${kind}.js`),
    read(new URL(`../panels/${source}.bin`, import.meta.url)),
  ])
  const content = document.createElement("div")
  form.append(content)
  show(content, panel, JSON.parse(words))
}

for (const form of document.querySelectorAll(".atlas-panel")) {
  const button = form.querySelector("button")
  let filled
  form.addEventListener("submit", (event) => event.preventDefault())
  button.addEventListener("click", async () => {
    await (filled ??= fill(form))
    button.ariaExpanded = button.ariaExpanded !== "true"
  })
}
