// The link to the page as plain Markdown becomes a button that copies it. Where the browser cannot copy
// (no https), the link stays.
for (const place of document.querySelectorAll(".atlas-plain")) {
  if (!navigator.clipboard || !window.ClipboardItem) break
  const link = place.querySelector("a")
  const button = document.createElement("button")
  button.type = "button"
  button.textContent = place.dataset.copy
  const status = document.createElement("span")
  status.setAttribute("role", "status")

  button.addEventListener("click", async () => {
    const text = fetch(link.href).then((response) => {
      if (!response.ok) throw new Error(response.statusText)
      return response.text()
    })
    const blob = text.then((markdown) => new Blob([markdown], { type: "text/plain" }))
    try {
      await navigator.clipboard.write([new ClipboardItem({ "text/plain": blob })])
      status.textContent = place.dataset.copied
      setTimeout(() => status.replaceChildren(), 2000)
    } catch {
      location.assign(link.href)
    }
  })
  link.replaceWith(button)
  place.prepend(status)
}
