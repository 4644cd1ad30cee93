// The language switch keeps the section the reader is at: both languages have the same ids.
for (const link of document.querySelectorAll(".atlas-language")) {
  link.addEventListener("click", () => {
    link.hash = location.hash
  })
}
