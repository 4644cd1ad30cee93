// Ranks the pages of one language for what a reader types. The index is made by sitekit/searchable.py.

const WORD = /\p{Script=Han}+|(?:(?!\p{Script=Han})[\p{L}\p{N}])+/gu;
const HAN = /^\p{Script=Han}/u;
const LETTER = /^(?!\p{Script=Han})[\p{L}\p{N}]/u;

// Words that say that something is a mechanism, not which one
const COMMON = new Set(
  "a an and attention block for function in layer mechanism module net network networks of the unit with".split(" "),
);
const COMMON_HAN = /注意力|机制|模块|网络|函数|单元|层|块|的|与|和/;

const EXACT = 1000;
const CLASS = 950; // the name of a class: several modules have one that is called Gate
const NEARLY = 900; // but for common words
const NAMED = 500; // all words in one name
const ALL = 200; // all words somewhere in the page
const PEAK = 99; // what can be added within one of these
const PHRASE = 10; // the words one after the other

/** Load an index. */
export async function load(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(answer.statusText);
  const pages = await answer.json();
  for (const page of pages) {
    page.keys = [...page.names.map((name) => spell(name, EXACT)), ...page.classes.map((name) => spell(name, CLASS))];
    page.texts = [
      fold([...page.names, ...page.classes].join("\n")),
      ...page.sections.map(([, heading, text]) => fold(`${heading}\n${text}`)),
    ];
  }
  return pages;
}

/**
 * Find pages, best first.
 *
 * Returns { found, words, corrected, missing, fit }: found holds { page, section }, a section is [id, heading, text];
 * words are those to be marked; corrected is what was searched instead, if anything; missing holds words that nothing
 * is near to: then what was found is only the nearest; fit says how well the first fits, "name", "all" or "some".
 */
export function search(pages, query) {
  const typed = words(query);
  const counted = new Map();
  const count = (word) => {
    if (!counted.has(word)) counted.set(word, pages.map((page) => page.texts.map((text) => places(text, word).length)));
    return counted.get(word);
  };
  const known = (word) => count(word).some((page) => page.some(Boolean));

  let corrected = false;
  const missing = [];
  const wanted = typed.flatMap((word) => {
    const split = known(word) ? [word] : word.split(new RegExp(`(${COMMON_HAN.source})`)).filter(Boolean);
    return split.flatMap((part) => {
      if (known(part)) return [part];
      if (common(part)) return [];
      const near = nearest(pages, part);
      if (!near) missing.push(part);
      else if (near.distance) corrected = true;
      return near ? near.words : [];
    });
  });

  let scored = [];
  if (wanted.some((word) => !common(word)) || !missing.length) scored = score(pages, wanted, count);
  if (!scored.length && typed.length) scored = similar(pages, typed.join(""));
  scored.sort((one, other) => other.score - one.score);
  return {
    found: scored,
    words: wanted,
    corrected: corrected ? wanted.join(" ") : "",
    missing,
    fit: scored[0]?.score >= NAMED ? "name" : scored[0]?.score >= ALL ? "all" : "some",
  };
}

/** Cut a text into [part, marked], beginning a little before the first word that was found. */
export function snippet(text, wanted) {
  const length = HAN.test(text) ? 80 : 160;
  const folded = fold(text);
  const marks = wanted.flatMap((word) => places(folded, word).map((start) => [start, start + word.length]));
  marks.sort(([one], [other]) => one - other);
  const first = marks.length ? Math.max(0, marks[0][0] - length / 4) : 0;
  const start = first ? text.indexOf(" ", first) + 1 || first : 0;
  const from = marks.length ? Math.min(start, marks[0][0]) : start;
  const to = Math.min(text.length, from + length);
  const parts = [[from ? "…" : "", false]];
  let at = from;
  for (const [begin, end] of marks) {
    if (begin < at || end > to) continue;
    parts.push([text.slice(at, begin), false], [text.slice(begin, end), true]);
    at = end;
  }
  parts.push([text.slice(at, to) + (to < text.length ? "…" : ""), false]);
  return parts;
}

function score(pages, wanted, count) {
  const whole = wanted.join("");
  const bare = core(wanted.join(" "));
  const phrase = wanted.length > 1 ? new RegExp(wanted.join("[^\\p{L}\\p{N}]{0,3}"), "u") : null;
  const weights = wanted.map((word) => Math.log(1 + pages.length / (1 + count(word).filter((page) => page.some(Boolean)).length)));
  return pages.flatMap((page, place) => {
    const counts = wanted.map((word) => count(word)[place]);
    const named = Math.max(...page.keys.map((name) => fit(name, wanted, whole, bare)));
    if (named) return [{ page, section: page.sections[0], score: named }];
    if (!counts.flat().some(Boolean)) return [];
    const worth = (section) =>
      (phrase?.test(page.texts[section]) ? PHRASE : 0) +
      counts.reduce((sum, all, word) => sum + (all[section] ? weights[word] * (2 + Math.log(all[section])) : 0), 0);
    const [names, ...sections] = page.texts.map((_, section) => worth(section));
    const best = sections.indexOf(Math.max(...sections));
    const all = counts.every((sections) => sections.some(Boolean));
    return [
      {
        page,
        section: page.sections[best],
        score: (all ? ALL : 0) + Math.min(PEAK, 2 * names + sections[best]),
      },
    ];
  });
}

/** How well a name fits, 0 if not all words are in it. */
function fit(name, wanted, whole, bare) {
  if (name.key === whole) return name.exact;
  if (bare && name.core === bare) return NEARLY;
  const inside = wanted.every((word) =>
    name.words.some((part) => (HAN.test(word) ? part.includes(word) : word.length > 2 ? part.startsWith(word) : part === word)),
  );
  return inside && bare ? NAMED + PEAK * (whole.length / name.key.length) : 0;
}

/** The name, or word of a name, with the fewest mistakes between it and a word; null if there are too many. */
function nearest(pages, word) {
  const allowed = HAN.test(word) ? Number(word.length > 3) : word.length > 7 ? 2 : Number(word.length > 3);
  let best = null;
  for (const page of pages)
    for (const name of page.keys)
      for (const [text, parts] of name.spellings) {
        const most = best ? best.distance - 1 : allowed;
        if (Math.abs(text.length - word.length) > most) continue;
        const found = distance(word, text);
        if (found <= most) best = { distance: found, words: parts };
      }
  return best;
}

/** Mistakes between two words: letters that differ, are missing, too many, or have changed places. */
function distance(one, other) {
  const rows = [[...Array(other.length + 1).keys()]];
  for (let i = 1; i <= one.length; i++) {
    rows.push([i]);
    for (let j = 1; j <= other.length; j++) {
      const same = one[i - 1] === other[j - 1];
      rows[i][j] = Math.min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + Number(!same));
      if (i > 1 && j > 1 && one[i - 1] === other[j - 2] && one[i - 2] === other[j - 1])
        rows[i][j] = Math.min(rows[i][j], rows[i - 2][j - 2] + 1);
    }
  }
  return rows[one.length][other.length];
}

/** The pages whose names share most pairs of letters with a text, at most three; the map if none is like it. */
function similar(pages, text) {
  const wanted = pairs(text);
  const scored = pages.map((page) => ({
    page,
    section: page.sections[0],
    score: Math.max(...page.keys.map(({ key }) => overlap(wanted, pairs(key)))),
  }));
  const near = scored.filter(({ score }) => score > 0.4).sort((one, other) => other.score - one.score);
  return near.length ? near.slice(0, 3) : scored.filter(({ page }) => page.url === "");
}

function pairs(text) {
  return new Set([...text].slice(1).map((letter, place) => text[place] + letter));
}

function overlap(one, other) {
  return (2 * [...one].filter((pair) => other.has(pair)).length) / (one.size + other.size || 1);
}

/** Where a word begins in a folded text. One of less than three letters must also end there. */
function places(text, word) {
  const found = [];
  for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + word.length)) {
    const whole = word.length > 2 || !LETTER.test(text.slice(at + word.length, at + word.length + 1));
    if (HAN.test(word) || (whole && !LETTER.test(text.slice(Math.max(0, at - 1), at)))) found.push(at);
  }
  return found;
}

function fold(text) {
  return text.toLowerCase().replaceAll("×", "x");
}

function words(text) {
  return fold(text.normalize("NFKC").replace(/(?<=\d)\s*[×x]\s*(?=\d)/gi, "x")).match(WORD) ?? [];
}

/** A name: all its letters, those of the words that are its own, its words, and what a mistake may be made in. */
function spell(name, exact) {
  const all = words(name);
  const own = all.filter((word) => !common(word));
  const spellings = [[all.join(""), all], ...all.map((word) => [word, [word]]), [own.join(""), own]];
  return { exact, key: all.join(""), core: core(name), words: all, spellings };
}

function common(word) {
  return COMMON.has(word) || word.split(COMMON_HAN).every((part) => !part);
}

function core(text) {
  return words(text)
    .filter((word) => !common(word))
    .map((word) => word.split(COMMON_HAN).join(""))
    .join("");
}
