// A button copies what the link beside it leads to. Where the browser cannot copy (no https), the link stands alone.
for (const place of document.querySelectorAll(".atlas-copy")) {
  const button = place.querySelector("button")
  const link = place.querySelector("a")
  const status = place.querySelector("[role=status]")
  button.hidden = !navigator.clipboard || !window.ClipboardItem

  button.addEventListener("click", async () => {
    const text = fetch(link.href).then((response) => {
      if (!response.ok) throw new Error(response.statusText)
      return response.text()
    })
    const blob = text.then((content) => new Blob([content], { type: "text/plain" }))
    try {
      await navigator.clipboard.write([new ClipboardItem({ "text/plain": blob })])
      status.textContent = place.dataset.copied
      setTimeout(() => status.replaceChildren(), 2000)
    } catch {
      location.assign(link.href)
    }
  })
}
