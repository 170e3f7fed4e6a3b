(() => {
  const { given, original } = data; // of all samples, by idx
  const lines = bytesFrom(data.lines); // (cards, 3, steps), 255 for probability 1
  const rankOf = new Map(data.idx.map((idx, rank) => [idx, rank])); // a card is known by its rank
  const list = byId("list");
  const GAP = 12, AT_ONCE = 60;
  const largest = Math.max(0, ...data.pictures.map(([, width, height]) => Math.max(width, height)));
  const PICTURE = largest > 128 ? 224 : 128;
  list.classList.toggle("large", largest > 128);
  list.classList.toggle("text", data.text !== null && !largest);

  const counted = (n, one) => `${n.toLocaleString("en")} ${one}${n === 1 ? "" : "s"}`;

  // ------------------------------------------------------------------------------------------------ marks

  const MARKS = [["wrong", "← wrong"], ["unsure", "↑ unsure"], ["drop", "d drop"], ["right", "right →"]];
  const TAKEN_BACK = ""; // of a mark that the page started with
  const storageKey = `marks ${data.key}`;
  const earlier = new Map(Object.entries(data.marks).map(([idx, mark]) => [Number(idx), mark]));
  let marks = new Map(); // those made here: idx -> {mark, label}, the label where the mark is "wrong"
  let unsaved = false; // marks that neither the browser keeps nor a file holds

  function readMarks() {
    try {
      const kept = Object.entries(JSON.parse(localStorage.getItem(storageKey) || "{}"));
      marks = new Map(kept.map(([idx, mark]) => [Number(idx), mark]));
    } catch {
      tellNotKept();
    }
  }

  /** {mark, label} of a sample; {} where it has none. */
  function markOf(idx) {
    const found = marks.get(idx) || earlier.get(idx) || {};
    return found.mark === TAKEN_BACK ? {} : found;
  }

  function writeMarks() {
    try {
      localStorage.setItem(storageKey, JSON.stringify(Object.fromEntries(marks)));
      unsaved = false;
    } catch {
      unsaved = marks.size > 0;
      tellNotKept();
    }
    tellCounts();
  }

  function tellNotKept() {
    notify("This browser does not keep marks for this page: export marks.csv before you close or reload it.");
  }

  function tellCounts() {
    const of = { wrong: 0, right: 0, unsure: 0, drop: 0 };
    for (const idx of new Set([...earlier.keys(), ...marks.keys()])) {
      const { mark } = markOf(idx);
      if (mark) of[mark] += 1;
    }
    const looked = (all) => `${all.filter((idx) => markOf(idx).mark).length} of ${all.length.toLocaleString("en")}`;
    const cards = Object.keys(data.audit).map(Number);
    const audit = cards.length ? ` (audit: ${looked(cards)})` : "";
    byId("looked").textContent = `${looked(data.idx)} looked at${audit}`;
    const drop = of.drop ? ` · ${of.drop} drop` : "";
    byId("counts").textContent = `${of.wrong} wrong · ${of.right} right · ${of.unsure} unsure${drop}`;
    byId("clear").disabled = marks.size === 0;
  }

  /** The same mark again takes it back. Returns whether the card is marked now. */
  function setMark(rank, mark) {
    const idx = data.idx[rank];
    const before = markOf(idx).mark;
    if (before !== mark) marks.set(idx, mark === "wrong" ? { mark, label: proposal(rank) } : { mark });
    else if (earlier.has(idx)) marks.set(idx, { mark: TAKEN_BACK });
    else marks.delete(idx);
    writeMarks();
    refresh(rank);
    return before !== mark;
  }

  /** The suggested class; where the network agrees with the given label, the likeliest of the others. */
  function proposal(rank) {
    const label = given[data.idx[rank]];
    if (data.suggestion[rank] !== label) return data.suggestion[rank];
    return data.third[rank] >= 0 ? data.third[rank] : label;
  }

  /** Text for a CSV file: no formula for a spreadsheet (which is read back), bytes that are no UTF-8 as \udcff. */
  function cell(text) {
    const plain = text.replace(/[\ud800-\udfff]/gu, (c) => `\\u${c.charCodeAt(0).toString(16)}`);
    const found = /^'*[=+\-@\t\r]/.test(plain) ? `'${plain}` : plain;
    return /[",;\r\n]|^\s|\s$/.test(found) ? `"${found.replaceAll('"', '""')}"` : found;
  }

  function exportMarks() {
    const names = data.classNames.map(cell);
    const rows = ["idx,file,original_label,given_label,label,label_name,mark,audit"];
    for (let idx = 0; idx < given.length; idx++) {
      const { mark = "", label: better } = markOf(idx);
      const label = mark === "wrong" ? better : given[idx], file = data.file ? cell(data.file[idx]) : "";
      const audit = cell(data.audit[idx] || "");
      rows.push([idx, file, original[idx], given[idx], label, names[label], mark, audit].join(","));
    }
    const link = element("a");
    link.href = URL.createObjectURL(new Blob([rows.join("\n"), "\n"], { type: "text/csv" }));
    link.download = "marks.csv";
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    unsaved = false;
    byId("next").open = true; // what to do with it
  }

  /** Rows of a CSV file: a cell may be quoted, and hold quotes, commas and line ends. */
  function rowsOfFile(text) {
    const rows = [[]];
    for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|$)/g)) {
      rows.at(-1).push(quoted === undefined ? plain : quoted.replaceAll('""', '"'));
      if (end !== ",") rows.push([]);
    }
    return rows.filter((row) => row.length > 1);
  }

  /** Marks of a file, made of this page's samples, in the place of those made here. */
  async function loadMarks(file) {
    const [header, ...rows] = rowsOfFile((await file.text()).replace(/^\ufeff/, ""));
    const at = (row, name) => row[(header || []).indexOf(name)];
    const fits = (row, i) =>
      Number(at(row, "idx")) === i && Number(at(row, "given_label")) === given[i] &&
      Number(at(row, "original_label") ?? original[i]) === original[i];
    if (rows.length !== given.length || !rows.every(fits)) {
      return notify(`${file.name} is no marks.csv of these samples and labels: nothing was loaded.`);
    }
    marks = new Map([...earlier.keys()].map((idx) => [idx, { mark: TAKEN_BACK }]));
    rows.forEach((row, idx) => {
      const mark = at(row, "mark"), label = Number(at(row, "label"));
      if (MARKS.some(([known]) => known === mark)) marks.set(idx, mark === "wrong" ? { mark, label } : { mark });
    });
    for (const [idx, found] of marks) if (same(found, earlier.get(idx))) marks.delete(idx);
    writeMarks();
    for (const rank of cards.keys()) refresh(rank);
    notify(`Loaded ${file.name}.`);
  }

  const same = (a, b) => a && b && a.mark === b.mark && (a.mark !== "wrong" || a.label === b.label);

  // ------------------------------------------------------------------------------------------------ cards

  const choices = document.createDocumentFragment(); // an option a class, to be cloned
  data.classNames.forEach((name, k) => choices.append(new Option(name, k)));

  function makeCard(rank) {
    const idx = data.idx[rank];
    const card = element("article", "card");
    card.dataset.rank = rank;
    card.dataset.idx = idx;
    card.tabIndex = -1;
    card.setAttribute("role", "listitem");
    const where = element("div", "where");
    where.append(element("span", "number", `idx ${idx}`));
    if (data.file) where.append(fileName(idx));
    where.append(element("span", "score", `score ${data.score[rank]}`));
    const view = element("div", "view");
    if (data.pictures.length) view.append(makePicture(rank));
    if (data.text) view.append(makeText(rank));
    view.append(makeCourse(rank));
    const reason = element("p", "reason", data.reason[rank]);
    const buttons = element("div", "marks");
    for (const [mark, text] of MARKS) {
      const button = element("button", mark, text);
      button.type = "button";
      button.setAttribute("aria-label", `${mark}: idx ${idx}`);
      button.addEventListener("click", () => setMark(rank, mark));
      buttons.append(button);
    }
    card.append(element("div", "names"), where, view, reason, buttons);
    card.addEventListener("click", (event) => select(shown.indexOf(rank), !event.target.closest("select")));
    card.addEventListener("focusin", () => select(shown.indexOf(rank), false));
    showMark(card, rank);
    return card;
  }

  /** The file's name, as a link where it is known where the file is. */
  function fileName(idx) {
    if (!data.filesAt) return clipped("bdi", data.file[idx]);
    const link = clipped("a", data.file[idx]);
    const parts = [...data.filesAt.split("/"), ...data.file[idx].split("/")];
    link.href = parts.map((part) => encodeURIComponent(part.toWellFormed())).join("/"); // bytes may be no UTF-8
    link.target = "_blank";
    link.rel = "noopener";
    return link;
  }

  function makeText(rank) {
    const text = element("p", "sample", data.text[rank]);
    text.tabIndex = 0; // so that the keyboard can scroll it
    text.setAttribute("role", "group");
    text.setAttribute("aria-label", `text of idx ${data.idx[rank]}`);
    return text;
  }

  function clipped(tag, text) {
    const made = element(tag, "clip", text);
    made.title = text;
    return made;
  }

  /** What depends on the mark: the buttons, and the choice of a class in the suggestion's place. */
  function showMark(card, rank) {
    const idx = data.idx[rank], { mark, label } = markOf(idx);
    const from = data.classNames[given[idx]], to = data.classNames[data.suggestion[rank]], percent = `${data.percent[rank]} %`;
    for (const button of card.querySelectorAll(".marks button")) {
      button.setAttribute("aria-pressed", String(button.classList.contains(mark)));
    }
    const targets = mark === "wrong" ? [makeChoice(rank, label)] : [clipped("bdi", to), element("span", "percent", percent)];
    targets[0].classList.add("to");
    card.querySelector(".names").replaceChildren(clipped("bdi", from), element("span", "", "→"), ...targets);
    card.querySelector(".where .badge")?.remove();
    if (mark && !marks.has(idx)) card.querySelector(".where .score").before(element("span", "badge", "earlier"));
    card.dataset.mark = mark || "";
    const spoken = `idx ${idx}, given ${from}, suggested ${to} ${percent}, score ${data.score[rank]}`;
    card.setAttribute("aria-label", mark ? `${spoken}, marked ${mark}` : spoken);
  }

  function makeChoice(rank, label) {
    const idx = data.idx[rank], choice = element("select", "choice");
    choice.append(choices.cloneNode(true));
    if (data.classNames.length > 1) choice.remove(given[idx]); // what is wrong is another class
    choice.value = label;
    choice.setAttribute("aria-label", `correct class of idx ${idx}`);
    choice.addEventListener("change", () => {
      marks.set(idx, { mark: "wrong", label: Number(choice.value) });
      writeMarks();
    });
    return choice;
  }

  function refresh(rank) {
    const card = cards.get(rank);
    if (card) showMark(card, rank);
  }

  // --------------------------------------------------------------------------------- pictures and curves

  function makePicture(rank) {
    const frame = element("div", "picture"), [file, width, height] = data.pictures[rank];
    const image = pictureFrom(file), scale = Math.max(1, Math.floor(PICTURE / Math.max(width, height)));
    image.width = width * scale;
    image.height = height * scale;
    image.classList.toggle("pixels", Math.max(width, height) < 32);
    image.alt = `image of idx ${data.idx[rank]}`;
    frame.append(image);
    return frame;
  }

  function makeCourse(rank) {
    const course = element("div", "course"), { steps } = data, end = Math.max(1, steps[steps.length - 1]);
    const chart = drawn("svg", { viewBox: `0 0 ${end} 100`, preserveAspectRatio: "none", role: "img" });
    for (const y of [0, 50, 100]) {
      chart.append(drawn("line", { class: "grid", x1: 0, x2: end, y1: y, y2: y, "vector-effect": "non-scaling-stroke" }));
    }
    const roles = [["given", given[data.idx[rank]]], ["suggested", data.suggestion[rank]], ["third", data.third[rank]]];
    const keys = [], spoken = [];
    roles.forEach(([role, k], which) => {
      if (k < 0 || (which === 1 && k === roles[0][1])) return;
      const start = (rank * 3 + which) * steps.length;
      const values = [...lines.subarray(start, start + steps.length)].map((v) => v / 255);
      const points = values.map((p, t) => `${steps[t]},${(100 - 100 * p).toFixed(1)}`);
      if (points.length === 1) points.push(`${end},${points[0].split(",")[1]}`);
      chart.prepend(drawn("polyline", { class: role, points: points.join(" ") })); // the first lies on top
      const key = element("div", "key"), swatch = drawn("svg", { viewBox: "0 0 26 8", "aria-hidden": "true" });
      swatch.append(drawn("line", { class: `swatch ${role}`, x1: 0, x2: 26, y1: 4, y2: 4 }));
      key.append(swatch, element("span", `role ${role}`, role), clipped("bdi", data.classNames[k]));
      keys.push(key);
      spoken.push(`${role} ${data.classNames[k]}: ${values[0].toFixed(2)} to ${values[values.length - 1].toFixed(2)}`);
    });
    chart.setAttribute("aria-label", `probabilities over training, ${spoken.join("; ")}`);
    const plot = element("div", "plot"), axis = element("div", "axis");
    axis.setAttribute("aria-hidden", "true");
    axis.append(element("span", "", "1"), element("span", "", "0"));
    plot.append(axis, chart);
    course.append(plot, ...keys);
    return course;
  }

  // ------------------------------------------------------- the list: cards are made as the reader comes to them

  let shown = []; // ranks that pass the filters
  let selected = 0; // a place in shown
  const cards = new Map(); // rank -> its card, of the first places of shown
  const nothing = element("p", "empty", "");

  function makeUpTo(place) {
    while (cards.size <= Math.min(place, shown.length - 1)) {
      const rank = shown[cards.size], card = makeCard(rank);
      cards.set(rank, card);
      card.setAttribute("aria-posinset", cards.size);
      card.setAttribute("aria-setsize", shown.length);
      list.append(card);
    }
  }

  /** Some more cards where the last ones come near. */
  function fill() {
    while (cards.size < shown.length && list.getBoundingClientRect().bottom < 2 * window.innerHeight) {
      makeUpTo(cards.size + AT_ONCE - 1);
    }
  }

  // ---------------------------------------------------------------------------------------- the selection

  function select(place, focus = true) {
    if (place < 0 || place >= shown.length) return;
    makeUpTo(place);
    const before = cards.get(shown[selected]), card = cards.get(shown[place]);
    before?.classList.remove("selected");
    if (before) before.tabIndex = -1;
    card.classList.add("selected");
    card.tabIndex = 0;
    selected = place;
    if (focus && !card.contains(document.activeElement)) card.focus({ preventScroll: true });
  }

  /** The part of the window that cards are seen in: below the tools where these stay in place. */
  function seen() {
    const tools = byId("tools").getBoundingClientRect();
    const top = getComputedStyle(byId("tools")).position === "sticky" ? tools.height : 0;
    return { top: top + GAP, bottom: window.innerHeight - GAP };
  }

  const selectedBox = () => cards.get(shown[selected]).getBoundingClientRect();

  function bringIntoView() {
    const box = selectedBox(), { top, bottom } = seen();
    if (box.top < top || box.height > bottom - top) window.scrollBy(0, box.top - top);
    else if (box.bottom > bottom) window.scrollBy(0, box.bottom - bottom);
  }

  function move(by) {
    select(Math.max(0, Math.min(shown.length - 1, selected + by)));
    bringIntoView();
  }

  const KEYS = { ArrowLeft: "wrong", ArrowRight: "right", ArrowUp: "unsure", d: "drop" };

  function onKey(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey || event.isComposing || !shown.length) return;
    const key = keyOf(event);
    if (event.target.closest?.("summary, pre, a") && key !== "j" && key !== "k") return;
    if (event.target.closest?.("input, select, textarea")) {
      if (key !== "Escape") return;
      event.target.blur();
      select(selected);
      return;
    }
    const rank = shown[selected], box = selectedBox(), { top, bottom } = seen();
    const isSeen = box.bottom > top + box.height / 2 && box.top < bottom - box.height / 2;
    const enter = key === "Enter" && !event.target.closest?.("button, a");
    if (key === "j" || key === "ArrowDown") move(1);
    else if (key === "k") move(-1);
    else if (!enter && !(key in KEYS)) return;
    else if (event.repeat) event.preventDefault(); // a key held down marks one card
    else if (!isSeen) move(0); // nobody marks a card without seeing it
    else if (enter) {
      if (markOf(data.idx[rank]).mark !== "wrong") setMark(rank, "wrong");
      cards.get(rank).querySelector("select").focus({ preventScroll: true });
    } else if (setMark(rank, KEYS[key])) move(1);
    event.preventDefault();
  }

  // ------------------------------------------------------------------------------------------ the filters

  const filters = { given: byId("filter-given"), suggested: byId("filter-suggested"), show: byId("filter-show") };
  const search = byId("search");

  function fillFilter(filter, labels) {
    const count = new Map();
    for (const k of labels) count.set(k, (count.get(k) || 0) + 1);
    filter.append(new Option("any class", ""));
    for (const k of [...count.keys()].sort((a, b) => a - b)) {
      filter.append(new Option(`${data.classNames[k]} (${count.get(k)})`, k));
    }
  }

  function passes(rank) {
    const idx = data.idx[rank], show = filters.show.value;
    if (filters.given.value !== "" && Number(filters.given.value) !== given[idx]) return false;
    if (filters.suggested.value !== "" && Number(filters.suggested.value) !== data.suggestion[rank]) return false;
    if (show === "suspects") return data.suspect[rank] === 1;
    if (show === "audit") return idx in data.audit;
    return show === "all" || Boolean(markOf(idx).mark) === (show === "marked");
  }

  /** A search looks at every card, whatever the filters. Marking does not move cards: only filtering anew does. */
  function filter() {
    const kept = shown[selected], wanted = search.value.trim();
    if (wanted !== "") {
      const rank = /^\d+$/.test(wanted) ? rankOf.get(Number(wanted)) : undefined;
      shown = rank === undefined ? [] : [rank];
      nothing.textContent = `No sample with idx ${wanted} is on this page.`;
    } else {
      shown = data.idx.map((_, rank) => rank).filter(passes);
      nothing.textContent = "No sample passes these filters.";
    }
    selected = Math.max(0, shown.indexOf(kept));
    byId("shown").textContent =
      shown.length === data.idx.length
        ? counted(shown.length, "sample")
        : `${shown.length.toLocaleString("en")} of ${counted(data.idx.length, "sample")}`;
    cards.clear();
    list.replaceChildren(...(shown.length ? [] : [nothing]));
    fill();
    select(selected, false);
    if (shown.length && selected > 0) bringIntoView();
    else if (list.getBoundingClientRect().top < seen().top) window.scrollBy(0, list.getBoundingClientRect().top - seen().top);
  }

  // -------------------------------------------------------------------------------------------- the start

  readMarks();
  writeMarks();
  fillFilter(filters.given, data.idx.map((idx) => given[idx]));
  fillFilter(filters.suggested, data.suggestion);
  for (const select of Object.values(filters)) select.addEventListener("change", filter);
  search.addEventListener("input", filter);
  filter();

  window.addEventListener("scroll", fill, { passive: true });
  window.addEventListener("resize", fill);
  document.addEventListener("keydown", onKey);
  byId("export").addEventListener("click", exportMarks);
  byId("load").addEventListener("change", async (event) => {
    if (event.target.files.length) await loadMarks(event.target.files[0]);
    event.target.value = ""; // so that the same file can be loaded again
  });
  byId("clear").addEventListener("click", () => {
    if (!confirm(`Clear all ${counted(marks.size, "mark")}?`)) return;
    marks.clear();
    writeMarks();
    for (const rank of cards.keys()) refresh(rank);
  });
  window.addEventListener("storage", (event) => { // marked in another window
    if (event.key !== storageKey) return;
    readMarks();
    tellCounts();
    for (const rank of cards.keys()) refresh(rank);
  });
  window.addEventListener("beforeunload", (event) => {
    if (unsaved) event.preventDefault();
  });
})();
