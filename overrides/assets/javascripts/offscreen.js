// What styles/offscreen.css leaves out at first is laid out once the browser has nothing else to do, piece by piece.
{
  const PIECE = 5 // ms; a piece may take longer on a slow machine, but no reader waits for it
  const parts = [...document.querySelectorAll(".later [data-later]")]
  const idle = window.requestIdleCallback ?? setTimeout
  const next = () => {
    const start = performance.now()
    while (parts.length && performance.now() - start < PIECE) {
      const part = parts.shift()
      part.style.contentVisibility = "visible"
      part.getBoundingClientRect() // lay it out now
    }
    if (parts.length) idle(next)
    else performance.mark("laid out")
  }
  idle(next)
}
