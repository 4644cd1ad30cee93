// What styles/offscreen.css leaves out at first is laid out once the browser has nothing else to do, piece by piece.
{
  const parts = [...document.querySelectorAll("pre > code[style], .atlas-figure[style], .dataflow")]
  const idle = window.requestIdleCallback ?? setTimeout
  const next = () => {
    const part = parts.shift()
    if (!part) return
    part.style.contentVisibility = "visible"
    idle(next)
  }
  addEventListener("load", () => idle(next))
}
