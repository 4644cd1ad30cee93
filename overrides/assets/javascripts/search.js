// The search index is the largest file of the site: it waits until the reader turns to the search.
{
  const turned = new Promise((resolve) => {
    const look = (event) => event.target.closest?.(".md-search, [for=__search]") && resolve()
    document.addEventListener("focusin", look)
    document.addEventListener("pointerover", look)
    if (location.search) resolve() // a shared search, or words to highlight
  })
  const { open, send } = XMLHttpRequest.prototype
  XMLHttpRequest.prototype.open = function (method, url, ...rest) {
    this.waits = String(url).endsWith("/search/search_index.json")
    open.call(this, method, url, ...rest)
  }
  XMLHttpRequest.prototype.send = function (body) {
    if (this.waits) turned.then(() => send.call(this, body))
    else send.call(this, body)
  }
}
