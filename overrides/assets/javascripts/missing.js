// The page for addresses that lead nowhere: only the language whose part of the site the address lies in, its field
// filled with the last words of the address, and the pages whose names are nearest to them.
import { load, search } from "./ranking.js";

const SHOWN = 3;

const parts = [...document.querySelectorAll(".atlas-missing")];
const inside = parts.filter((part) => location.pathname.startsWith(part.dataset.home)).at(-1) ?? parts[0];
for (const part of parts) part.hidden = part !== inside;
document.documentElement.lang = inside.lang;

const name = location.pathname.replace(/\/(index\.html)?$/, "").split("/").at(-1);
const words = decodeURIComponent(name.replace(/%(?![\da-f]{2})/gi, " ")).replace(/\.(html|md|py)$|[-_]+/g, " ").trim();
inside.querySelector("input").value = words;

const home = new URL(inside.dataset.home, location);
const { found } = search(await load(new URL("search.json", home)), words);
const list = inside.querySelector("ul");
for (const { page } of found.slice(0, SHOWN)) {
  const link = document.createElement("a");
  link.href = new URL(`./${page.url}`, home);
  link.textContent = page.title;
  const item = document.createElement("li");
  item.append(link);
  list.append(item);
}
list.parentElement.hidden = !found.length;
