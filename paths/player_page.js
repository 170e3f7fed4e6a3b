(async () => {
  const { idx, given, truth, kind, steps, classNames } = data;
  const n = idx.length, K = classNames.length, S = steps.length, END = S - 1;
  const OTHER = 0, EASY = 1, HARD = 2, WRONG = 3, EVERYTHING = -1;
  const still = matchMedia("(prefers-reduced-motion: reduce)");

  let q; // (n, S, K), 255 for probability 1
  try {
    q = new Uint8Array(await unzipped(bytesFrom(byId("path").textContent)));
  } catch {
    return notify("This browser cannot unpack the page (it has no DecompressionStream): take a newer one.");
  }

  function unzipped(bytes) {
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  }

  const percent = (share) => `${Math.round(100 * share)} %`;
  const stepOf = (s) => `${data.stepName} ${steps[s].toLocaleString("en")}`;
  const mod = (a, b) => ((a % b) + b) % b;

  // ------------------------------------------------------------------------------ what the network predicts

  const predicted = new Int32Array(n * S); // -1 where all classes are too small for a byte
  for (let at = 0; at < n * S; at++) {
    let best = -1, most = 0;
    for (let k = 0; k < K; k++) if (q[at * K + k] > most) most = q[at * K + (best = k)];
    predicted[at] = best;
  }

  const everyone = idx.map((_, i) => i), everyClass = classNames.map((_, k) => k);
  const isOf = { [EVERYTHING]: () => true };
  for (const k of [EASY, HARD, WRONG]) isOf[k] = (i) => kind[i] === k;
  const members = (stop) => everyone.filter(isOf[stop]);

  /** The share of the samples that are predicted as labels (by sample) say, at each step. */
  function shares(samples, labels) {
    return steps.map((_, s) => samples.filter((i) => predicted[i * S + s] === labels[i]).length / samples.length);
  }

  function flips(samples) {
    let found = 0;
    for (const i of samples) for (let s = 1; s < S; s++) found += predicted[i * S + s] !== predicted[i * S + s - 1];
    return (found / samples.length).toFixed(1);
  }

  // --------------------------------------------------------------------------------------------- the stops

  const truly = data.known ? "true" : "suggested", wrongs = data.known ? "mislabelled" : "suspects";
  const STOPS = {
    [EVERYTHING]: { name: "all", look: "other", key: "0" },
    [EASY]: { name: "1 · easy", look: "other", key: "1" },
    [HARD]: { name: "2 · hard", look: "hard", key: "2" },
    [WRONG]: { name: `3 · ${wrongs}`, look: "wrong", key: "3" },
  };
  const order = [EVERYTHING, EASY, HARD, WRONG].filter((stop) => members(stop).length);

  function textOf(stop) {
    const those = members(stop), asGiven = shares(those, given);
    if (stop === EVERYTHING) {
      const many = members(WRONG).length;
      const said = ["Play, and watch the dots leave for the corners."];
      if (many) said.push(`${many.toLocaleString("en")} of them ${data.known ? "have a wrong label" : "are suspected to have a wrong label"}: watch where these go first.`);
      return said;
    }
    if (stop === EASY) {
      const soon = asGiven.findIndex((share) => share >= 0.9);
      const when = soon >= 0 ? `By ${stepOf(soon)} nine in ten of them are at their label.` : `At the end ${percent(asGiven[END])} of them are at their label.`;
      return ["The easier half of the right labels: most go straight to the corner of their label, and stay.", when];
    }
    if (stop === HARD) {
      const easy = members(EASY);
      const beside = easy.length ? `, an easy one ${flips(easy)} times` : "";
      return [
        `The hardest tenth of the right labels, by ${data.hardest}: they hesitate and change sides.`,
        `One of them changes its predicted class ${flips(those)} times on average${beside}. At the end ${percent(asGiven[END])} are at their label.`,
      ];
    }
    const asTrue = shares(those, truth), best = asTrue.indexOf(Math.max(...asTrue));
    const said = [data.known ? "Their label is wrong. Watch which corner they go to first." : "Their label is most likely wrong: another class was ahead of it (report.html)."];
    if (asTrue[best] > asTrue[END] + 0.1) said.push(`At ${stepOf(best)}, ${percent(asTrue[best])} are at their ${truly} class. Then their labels pull them away.`);
    said.push(`At the end ${percent(asTrue[END])} are at their ${truly} class and ${percent(asGiven[END])} at the label that they were given${asGiven[END] > 0.5 ? ": the network has learned the errors by heart" : ""}.`);
    return said;
  }

  function curvesOf(stop) {
    const curve = (kind, labels, look, text) => ({ look, text, values: shares(members(kind), labels) });
    const wrong = members(WRONG).length && (stop === EVERYTHING || stop === WRONG) ? [
      curve(WRONG, truth, "wrong", `${wrongs}, at their ${truly} class`),
      curve(WRONG, given, "wrong given", `${wrongs}, at the given label`),
    ] : [];
    if (stop === WRONG) return wrong;
    if (stop === EVERYTHING) {
      const right = everyone.filter((i) => kind[i] !== WRONG);
      const others = { look: "other", text: wrong.length ? "other samples, at their label" : "at their label", values: shares(right, given) };
      return right.length ? [others, ...wrong] : wrong;
    }
    return [curve(stop, given, STOPS[stop].look, "at the given label")];
  }

  let stop = EVERYTHING;

  function goTo(wanted) {
    stop = wanted;
    for (const button of byId("stops").children) button.setAttribute("aria-pressed", String(Number(button.value) === stop));
    byId("text").replaceChildren(...textOf(stop).map((text) => element("p", "", text)));
    const following = order[order.indexOf(stop) + 1];
    byId("next").hidden = following === undefined;
    if (following !== undefined) byId("next").textContent = `Next: ${STOPS[following].name.replace(/^\d · /, "")} →`;
    pinned = null;
    if (view === "triangle") setCorners(cornersFor(featured().at(-1) ?? 0));
    drawChart();
    wake();
  }

  /** The samples whose pictures travel along. */
  function featured() {
    if (stop === EVERYTHING) return [EASY, HARD, WRONG].flatMap((k) => data.featured[k].slice(0, 1));
    return data.featured[stop] ?? members(stop).slice(0, 3);
  }

  // ------------------------------------------------------------- the view: where each class has its corner

  const B = new Float64Array(2 * K); // now
  let from = null, towards = null, morphed = 1, eased = 1; // of a change of view, which takes MORPH seconds
  let view = "circle", corners = [], turned = null; // by the tour
  const MORPH = 0.7;
  const speeds = Array.from({ length: K }, (_, k) => 0.1 + 0.13 * mod(k * 0.618, 1));

  function onCircle(many) {
    return Array.from({ length: many }, (_, k) => {
      const angle = (2 * Math.PI * k) / many - (many === 2 ? Math.PI / 2 : 0);
      return [Math.sin(angle), -Math.cos(angle)];
    });
  }

  /** The linear map of a view. In the triangle all other classes have their corner in its centre. */
  function mapOf(name) {
    const map = new Float64Array(2 * K), places = onCircle(name === "triangle" ? 3 : K);
    const shown = name === "triangle" ? corners : everyClass;
    shown.forEach((k, c) => map.set(places[c], 2 * k));
    return map;
  }

  function setView(name) {
    const before = view;
    [view, turned] = [name, null];
    for (const id of ["circle", "tour", "triangle"]) byId(id).setAttribute("aria-pressed", String(id === view));
    byId("corners").hidden = view !== "triangle";
    byId("how").textContent = {
      circle: "All classes lie on a circle.",
      tour: "A grand tour: the simplex of all classes turns through its dimensions.",
      triangle: "The simplex of three classes, and the samples of these. A prediction of other classes lies in the middle.",
    }[view] + " Lines are samples' paths, thick lines their moving averages.";
    if (view === "triangle" && !corners.length) corners = cornersFor(pinned ?? featured().at(-1) ?? 0); // a mislabelled one
    if (view === "triangle") showCorners();
    if (view !== "tour") morphTo(mapOf(view));
    else if (before === "triangle") morphTo(mapOf("circle"));
    wake();
  }

  function morphTo(map) {
    [from, towards, morphed] = [{ map: B.slice(), unit, middle }, map, still.matches || !width ? 1 : 0];
    if (morphed === 1) B.set(map);
  }

  /** Given and true class of a sample, and the largest of the others. */
  function cornersFor(i) {
    const mean = classNames.map((_, k) => {
      let sum = 0;
      for (let s = 0; s < S; s++) sum += q[(i * S + s) * K + k];
      return sum;
    });
    const rest = [...everyClass].sort((a, b) => mean[b] - mean[a]);
    return [...new Set([given[i], truth[i], ...rest])].slice(0, 3);
  }

  function setCorners(chosen) {
    corners = chosen;
    showCorners();
    morphTo(mapOf("triangle"));
    wake();
  }

  function showCorners() {
    [...byId("corners").children].forEach((select, c) => (select.value = corners[c]));
  }

  /** Turn in the planes of neighbouring classes: what was orthogonal stays so. The middle of all corners stays there. */
  function turn(seconds) {
    turned ??= B.slice();
    for (let k = 0; k < K; k++) {
      const l = (k + 1 + (k % 3)) % K, c = Math.cos(speeds[k] * seconds), s = Math.sin(speeds[k] * seconds);
      if (l === k) continue;
      for (const xy of [0, 1]) {
        const a = turned[2 * k + xy], b = turned[2 * l + xy];
        turned[2 * k + xy] = c * a - s * b;
        turned[2 * l + xy] = s * a + c * b;
      }
    }
    const mean = [0, 1].map((xy) => everyClass.reduce((sum, k) => sum + turned[2 * k + xy], 0) / K);
    for (let j = 0; j < 2 * K; j++) B[j] = turned[j] - mean[j % 2];
  }

  // ------------------------------------------------------------------------------------------- the picture

  const canvas = byId("dots"), pen = canvas.getContext("2d");
  const LOOKS = ["other", "hard", "wrong"], SPREAD = 0.075, TAIL = 1, above = 40; // of the radius; steps; pixels
  const spread = new Float64Array(2 * n); // where each dot lies in its heap
  for (let i = 0; i < n; i++) {
    const far = Math.sqrt(mod(i * 0.7548776662, 1)), angle = 2 * Math.PI * mod(i * 0.5698402909, 1);
    spread.set([far * Math.cos(angle), far * Math.sin(angle)], 2 * i);
  }
  const xy = new Float64Array(2 * n), tail = new Float64Array(2 * n); // pixels
  let width = 0, height = 0, beside = 0, radius = 0, unit = 0, middle = 0, dot = 5, dpr = 1, ink = {}, sprites = {}; // in pixels

  const lookOf = (i) => (kind[i] === WRONG ? "wrong" : kind[i] === HARD ? "hard" : "other");

  function measure() {
    const box = canvas.getBoundingClientRect(), style = getComputedStyle(document.documentElement);
    dpr = Math.min(devicePixelRatio || 1, 2);
    [width, height] = [box.width, box.height];
    canvas.width = Math.round(width * dpr);
    canvas.height = Math.round(height * dpr);
    for (const name of [...LOOKS, "ink", "quiet", "surface", "line", "grid"]) ink[name] = style.getPropertyValue(`--${name}`).trim();
    pen.font = font();
    const widest = Math.min(width / 4, Math.max(...classNames.map((name) => pen.measureText(name).width)));
    beside = Math.min(widest + 22, width / 4);
    radius = Math.min(width / 2 - beside, height / 2 - above) / (1 + SPREAD);
    dot = clamp(0.21 * Math.sqrt((width * height) / n), 2.4, 6);
    sprites = Object.fromEntries(LOOKS.map((look) => [look, sprite(look, dot, dpr)]));
    draw(); // at once: the box is empty now
  }

  const font = (bold = "") => `${bold} ${width < 500 ? 13 : 15}px system-ui, sans-serif`;

  /** A dot; mislabelled ones are diamonds, hard ones squares, so that no colour is needed to tell them. */
  function shape(context, look, x, y, size) {
    context.beginPath();
    if (look === "hard") context.rect(x - size * 0.8, y - size * 0.8, size * 1.6, size * 1.6);
    else if (look === "wrong") {
      context.moveTo(x, y - size * 1.25);
      context.lineTo(x + size * 1.25, y);
      context.lineTo(x, y + size * 1.25);
      context.lineTo(x - size * 1.25, y);
      context.closePath();
    } else context.arc(x, y, size, 0, 2 * Math.PI);
  }

  function sprite(look, size, scale) {
    const made = document.createElement("canvas"), half = Math.ceil(size * 1.5), context = made.getContext("2d");
    made.width = made.height = 2 * half * scale;
    context.scale(scale, scale);
    shape(context, look, half, half, look === "other" ? size * 0.8 : size * 0.86);
    context.fillStyle = ink[look];
    context.strokeStyle = ink.surface;
    context.lineWidth = 0.7;
    context.fill();
    context.stroke();
    return { made, half };
  }

  /** Where the corners lie, and all dots at a time, in pixels from the upper left. */
  function place(time, out, only = everyone) {
    const s = Math.max(0, Math.min(END, Math.floor(time))), later = Math.min(s + 1, END), w = Math.min(1, Math.max(0, time - s));
    for (const i of only) {
      const a = (i * S + s) * K, b = (i * S + later) * K;
      let x = 0, y = 0;
      for (let k = 0; k < K; k++) {
        const p = q[a + k] + w * (q[b + k] - q[a + k]);
        if (p === 0) continue;
        x += p * B[2 * k];
        y += p * B[2 * k + 1];
      }
      out[2 * i] = width / 2 + (unit * x) / 255 + radius * SPREAD * spread[2 * i];
      out[2 * i + 1] = middle + (unit * y) / 255 + radius * SPREAD * spread[2 * i + 1];
    }
  }

  const cornerAt = (k) => [width / 2 + unit * B[2 * k], middle + unit * B[2 * k + 1]];
  const visible = (k) => view !== "triangle" || corners.includes(k);
  const isLit = (i) => isOf[stop](i) && visible(given[i]) && visible(truth[i]);

  /** The picture's scale and middle: all corners in the box, on the way from view to view, too. */
  function fit() {
    let farthest = 1, wanted = height / 2;
    for (let k = 0; k < K; k++) farthest = Math.max(farthest, Math.hypot(B[2 * k], B[2 * k + 1]));
    unit = radius / farthest;
    if (view === "triangle" || K === 3) {
      unit = Math.min((width / 2 - beside) / 0.866, (height - 2 * above) / 1.5) / (1 + SPREAD);
      wanted += unit / 4; // its centre lies low in its box
    }
    if (morphed < 1) [unit, wanted] = [from.unit + eased * (unit - from.unit), from.middle + eased * (wanted - from.middle)];
    middle = wanted;
  }

  function draw() {
    fit();
    pen.setTransform(dpr, 0, 0, dpr, 0, 0);
    pen.clearRect(0, 0, width, height);
    drawFrame();
    place(time, xy);
    place(time - TAIL, tail);
    const groups = { other: [], hard: [], wrong: [] };
    for (const i of everyone) if (isLit(i)) groups[lookOf(i)].push(i);
    pen.globalAlpha = 0.16;
    for (const i of everyone) if (!isLit(i)) stamp(sprites[lookOf(i)], i);
    for (const [look, samples] of Object.entries(groups)) {
      pen.globalAlpha = look === "other" ? 0.25 : 0.35;
      pen.strokeStyle = ink[look];
      pen.lineWidth = 1 / dpr; // what is wider takes ten times as long to draw without a GPU
      pen.beginPath();
      for (const i of samples) {
        if (Math.abs(tail[2 * i] - xy[2 * i]) + Math.abs(tail[2 * i + 1] - xy[2 * i + 1]) < 4) continue;
        pen.moveTo(tail[2 * i], tail[2 * i + 1]);
        pen.lineTo(xy[2 * i], xy[2 * i + 1]);
      }
      pen.stroke();
      pen.globalAlpha = look === "other" ? 0.75 : 0.9;
      for (const i of samples) stamp(sprites[look], i);
    }
    pen.globalAlpha = 1;
    drawCorners();
    const shown = chosen() === null ? featured().filter(isLit) : [chosen()];
    shown.forEach(drawTrail);
    if (chosen() === null) shown.forEach(drawCompanion);
    showCard();
  }

  function stamp({ made, half }, i) {
    pen.drawImage(made, xy[2 * i] - half, xy[2 * i + 1] - half, 2 * half, 2 * half);
  }

  /** The edges of the simplex, or for many classes its axes alone. */
  function drawFrame() {
    pen.lineWidth = 1;
    pen.strokeStyle = ink.grid;
    pen.beginPath();
    for (let k = 0; k < K; k++) {
      if (!visible(k)) continue;
      for (let l = K > 12 ? K : k + 1; l < K; l++) {
        if (!visible(l)) continue;
        pen.moveTo(...cornerAt(k));
        pen.lineTo(...cornerAt(l));
      }
      if (K <= 12) continue;
      pen.moveTo(width / 2, middle);
      pen.lineTo(...cornerAt(k));
    }
    pen.stroke();
  }

  function drawCorners() {
    const wanted = new Set(K > 24 && view !== "triangle" ? (chosen() === null ? featured() : [chosen()]).flatMap((i) => [given[i], truth[i]]) : everyClass);
    for (let k = 0; k < K; k++) {
      if (!visible(k)) continue;
      const [x, y] = cornerAt(k), dx = x - width / 2, dy = y - middle, far = Math.hypot(dx, dy);
      if (!wanted.has(k)) {
        pen.fillStyle = ink.line;
        pen.fillRect(x - 2, y - 2, 4, 4);
        continue;
      }
      const out = far < 1 ? 0 : radius * SPREAD + 12, lx = x + (dx / (far || 1)) * out, ly = y + (dy / (far || 1)) * out;
      pen.font = font(600);
      pen.textAlign = Math.abs(dx) < far * 0.35 ? "center" : dx > 0 ? "left" : "right";
      const room = pen.textAlign === "left" ? width - lx - 4 : pen.textAlign === "right" ? lx - 4 : width / 2;
      outlined(fitted(classNames[k], room), lx, ly);
    }
  }

  function fitted(text, room) {
    let shown = text;
    while (shown.length > 1 && pen.measureText(shown).width > room) shown = `${shown.replace(/…$/u, "").slice(0, -1)}…`;
    return shown;
  }

  /** A sample's path so far: thin as it is, thick its moving average. */
  function drawTrail(i) {
    const point = new Float64Array(2 * n), raw = [], average = [];
    for (let s = 0; s < time + 1; s++) {
      place(Math.min(s, time), point, [i]);
      const [x, y] = point.subarray(2 * i, 2 * i + 2), weight = data.smoothing * Math.min(1, time + 1 - s);
      const [ax, ay] = average.at(-1) ?? [x, y];
      raw.push([x, y]);
      average.push([ax + weight * (x - ax), ay + weight * (y - ay)]);
    }
    pen.lineJoin = pen.lineCap = "round";
    for (const [points, line, color, alpha] of [[raw, 1, ink[lookOf(i)], 0.7], [average, 6, ink.surface, 0.9], [average, 3, ink[lookOf(i)], 1]]) {
      pen.beginPath();
      for (const [x, y] of points) pen.lineTo(x, y);
      pen.globalAlpha = alpha;
      pen.lineWidth = line;
      pen.strokeStyle = color;
      pen.stroke();
    }
    pen.globalAlpha = 1;
    shape(pen, lookOf(i), xy[2 * i], xy[2 * i + 1], dot * 1.5);
    pen.fillStyle = ink[lookOf(i)];
    pen.fill();
    pen.lineWidth = 1.6;
    pen.strokeStyle = ink.ink;
    pen.stroke();
  }

  /** The picture and the label of a sample, in a corner of the box that no class needs, tied to its dot. */
  function drawCompanion(i, which) {
    const side = width < 500 ? 40 : 64, margin = width < 500 ? 8 : 16, low = view === "triangle" || K === 3;
    const [right, down] = [[0, 0], [1, 0], low ? [0, 0.42] : [1, 1], [0, 1]][which] ?? [0, 0];
    const left = margin + right * (width - side - 2 * margin), top = margin + down * (height - side - 36 - 2 * margin);
    pen.strokeStyle = pen.fillStyle = ink[lookOf(i)];
    pen.lineWidth = 1.5;
    pen.globalAlpha = 0.6;
    pen.setLineDash([2, 3]);
    pen.beginPath();
    pen.moveTo(xy[2 * i], xy[2 * i + 1]);
    pen.lineTo(left + side / 2, top + side / 2);
    pen.stroke();
    pen.setLineDash([]);
    pen.globalAlpha = 1;
    const said = [`label: ${classNames[given[i]]}`];
    if (truth[i] !== given[i]) said.push(`${data.known ? "is" : "suggested"}: ${classNames[truth[i]]}`);
    if (data.pictures) {
      const [, w, h] = data.pictures[i], scale = side / Math.max(w, h), [wide, high] = [w * scale, h * scale];
      pen.imageSmoothingEnabled = Math.max(w, h) >= 32;
      pen.fillRect(left - 2, top - 2, side + 4, side + 4);
      pen.fillStyle = ink.grid;
      pen.fillRect(left, top, side, side);
      pen.drawImage(pictureOf(i), left + (side - wide) / 2, top + (side - high) / 2, wide, high); // once it is decoded
    }
    pen.textAlign = right ? "right" : "left";
    said.forEach((text, line) => {
      pen.font = `${line ? "" : "600 "}${width < 500 ? 12 : 14}px system-ui, sans-serif`;
      outlined(fitted(text, width / 3), left + right * side, top + (data.pictures ? side + 13 : 8) + 18 * line);
    });
  }

  function outlined(text, x, y) {
    pen.textBaseline = "middle";
    pen.lineJoin = "round";
    pen.lineWidth = 4;
    pen.strokeStyle = ink.surface;
    pen.strokeText(text, x, y);
    pen.fillStyle = ink.ink;
    pen.fillText(text, x, y);
  }

  const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

  const pictures = new Map(); // those that were asked for

  function pictureOf(i) {
    if (!pictures.has(i)) {
      pictures.set(i, pictureFrom(data.pictures[i][0]));
      pictures.get(i).decode().then(wake);
    }
    return pictures.get(i);
  }

  // ----------------------------------------------------------------------------- one sample, and its card

  let hovered = null, pinned = null, carded = null;
  const chosen = () => hovered ?? pinned;

  function nearest(x, y, within) {
    let best = null, least = within ** 2;
    for (const i of everyone) {
      const far = (xy[2 * i] - x) ** 2 + (xy[2 * i + 1] - y) ** 2 + (isLit(i) ? 0 : 60);
      if (far < least) [best, least] = [i, far];
    }
    return best;
  }

  function showCard() {
    const i = chosen(), card = byId("card");
    card.hidden = i === null;
    if (i === null) return (carded = null);
    if (carded !== i) {
      carded = i;
      const parts = [];
      if (data.pictures) {
        const [file, ...size] = data.pictures[i], image = pictureFrom(file);
        image.classList.toggle("pixels", Math.max(...size) < 32);
        image.alt = "";
        parts.push(image);
      }
      if (data.text) parts.push(element("q", "", data.text[i]));
      parts.push(element("strong", "", `label: ${classNames[given[i]]}`));
      if (truth[i] !== given[i]) parts.push(element("span", "", `${data.known ? "is" : "suggested"}: ${classNames[truth[i]]}`));
      parts.push(element("span", "now"), element("span", "quiet", `idx ${idx[i]}`));
      card.replaceChildren(...parts);
    }
    card.querySelector(".now").textContent = `now: ${likely(i)}`;
    const [x, y] = [xy[2 * i], xy[2 * i + 1]], { offsetWidth: wide, offsetHeight: high } = card;
    const left = x + 18 + wide < width ? x + 18 : x - 18 - wide, top = clamp(y - high / 2, 4, height - high - 4);
    card.style.transform = `translate(${Math.round(clamp(left, 4, Math.max(4, width - wide - 4)))}px, ${Math.round(top)}px)`;
  }

  /** The two likeliest classes of a sample now. */
  function likely(i) {
    const s = Math.round(time), at = (i * S + s) * K;
    const largest = [...everyClass].sort((a, b) => q[at + b] - q[at + a]).slice(0, 2);
    return largest.filter((k, c) => c === 0 || q[at + k] >= 13).map((k) => `${classNames[k]} ${percent(q[at + k] / 255)}`).join(", ");
  }

  function pin(i) {
    pinned = i;
    hovered = null;
    if (i !== null) {
      if (view === "triangle") setCorners(cornersFor(i));
      const is = truth[i] === given[i] ? "" : `, ${data.known ? "is" : "suggested"} ${classNames[truth[i]]}`;
      byId("said").textContent = `idx ${idx[i]}: label ${classNames[given[i]]}${is}; ${stepOf(Math.round(time))}: ${likely(i)}`;
    }
    wake();
  }

  /** The next sample of the stop: those with a picture on their way first. */
  function walk(by) {
    const all = [...new Set([...featured(), ...members(stop)])], at = all.indexOf(pinned);
    pin(all[at < 0 ? (by > 0 ? 0 : all.length - 1) : mod(at + by, all.length)]);
  }

  const nearestTo = (event, within) => nearest(event.offsetX, event.offsetY, within);
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerType === "mouse") hovered = nearestTo(event, 12);
    wake();
  });
  canvas.addEventListener("pointerdown", (event) => pin(nearestTo(event, event.pointerType === "mouse" ? 12 : 26)));
  canvas.addEventListener("pointerleave", () => {
    hovered = null;
    wake();
  });

  // ------------------------------------------------------------------------------------------------- time

  let time = 0, playing = false, running = false, last = 0;
  const SECONDS = clamp(END * 0.25, 3, 16); // from the first step to the last

  function setTime(wanted) {
    time = clamp(wanted, 0, END);
    wake();
  }

  function play(on) {
    if (on && time >= END) time = 0;
    playing = on;
    byId("play").textContent = on ? "Pause" : "Play";
    if (!on) tell();
    wake();
  }

  /** What is heard, by who does not see: the curves' values of now. */
  function tell() {
    const s = Math.round(time), found = curvesOf(stop).map(({ text, values }) => `${text}: ${percent(values[s])}`);
    byId("said").textContent = `${stepOf(s)}. ${found.join("; ")}`;
  }

  function wake() {
    if (running) return;
    running = true;
    last = performance.now();
    requestAnimationFrame(frame);
  }

  function frame(now) {
    const seconds = clamp((now - last) / 1000, 0, 0.1);
    last = now;
    if (playing) {
      time = Math.min(END, time + (seconds * END) / SECONDS);
      if (time >= END) play(false);
    }
    if (view === "tour" && morphed === 1) turn(seconds);
    if (towards && morphed < 1) {
      morphed = Math.min(1, morphed + seconds / MORPH);
      eased = morphed * morphed * (3 - 2 * morphed);
      for (let j = 0; j < 2 * K; j++) B[j] = from.map[j] + eased * (towards[j] - from.map[j]);
    }
    draw();
    showTime();
    running = playing || view === "tour" || (towards !== null && morphed < 1);
    if (running) requestAnimationFrame(frame);
  }

  const slider = byId("step");

  function showTime() {
    const s = Math.round(time);
    slider.value = time;
    slider.setAttribute("aria-valuetext", stepOf(s));
    byId("now").textContent = `${stepOf(s)} of ${steps[END].toLocaleString("en")}`;
    byId("chart").querySelector(".head").setAttribute("transform", `translate(${time} 0)`);
  }

  function drawChart() {
    const chart = byId("chart"), found = curvesOf(stop);
    chart.setAttribute("viewBox", `0 0 ${Math.max(END, 1)} 100`);
    const lines = [0, 50, 100].map((y) => drawn("line", { class: "grid", x1: 0, x2: Math.max(END, 1), y1: y, y2: y }));
    for (const { look, values } of found) {
      const points = values.map((share, s) => `${s},${(100 - 100 * share).toFixed(1)}`);
      lines.push(drawn("polyline", { class: look, points: points.join(" ") }));
    }
    lines.push(drawn("line", { class: "head", x1: 0, x2: 0, y1: -4, y2: 104 }));
    chart.replaceChildren(...lines);
    chart.setAttribute("aria-label", `Shares over training. ${found.map(({ text, values }) => `${text}: ${percent(values[0])} to ${percent(values[END])}`).join("; ")}`);
    byId("keys").replaceChildren(...found.map(({ look, text }) => {
      const item = element("li"), key = drawn("svg", { viewBox: "0 0 26 8", "aria-hidden": "true" });
      key.append(drawn("line", { class: look, x1: 0, x2: 26, y1: 4, y2: 4 }));
      item.append(key, text);
      return item;
    }));
    showTime();
  }

  function scrub(event) {
    if (event.type === "pointermove" && !event.buttons) return;
    const box = byId("chart").getBoundingClientRect();
    play(false);
    setTime((END * (event.clientX - box.left)) / box.width);
  }

  // --------------------------------------------------------------------------------------------- the keys

  const isArrow = (key) => /^(Arrow|Page|Home|End)/.test(key);

  function onKey(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing || event.defaultPrevented) return;
    const key = keyOf(event), at = event.target.closest?.("input, select, textarea, button, summary");
    if (at && (at.matches("select, textarea") || (at.type === "range" ? isArrow(key) : key === " " || key === "Enter"))) return;
    const found = order.find((one) => STOPS[one].key === key);
    if (key === "ArrowLeft" || key === "ArrowRight") {
      play(false);
      setTime(key === "ArrowLeft" ? Math.ceil(time) - 1 : Math.floor(time) + 1);
      tell();
    } else if (event.repeat && (key === " " || found !== undefined || key === "v")) return event.preventDefault();
    else if (key === " ") play(!playing);
    else if (found !== undefined) visit(found);
    else if (key === "n") walk(1);
    else if (key === "p") walk(-1);
    else if (key === "v" && K > 3) setView({ circle: "tour", tour: "triangle", triangle: "circle" }[view]);
    else if (key === "Escape") pin(null);
    else return;
    event.preventDefault();
  }

  /** A stop of the story: from the start of training on, unless nothing shall move. */
  function visit(wanted) {
    goTo(wanted);
    setTime(0);
    play(!still.matches);
  }

  // -------------------------------------------------------------------------------------------- the start

  for (const one of order) {
    const button = element("button"), { name, look } = STOPS[one];
    button.type = "button";
    button.value = one;
    button.append(element("i", look), element("span", "", name), element("span", "count", members(one).length.toLocaleString("en")));
    button.addEventListener("click", () => visit(one));
    byId("stops").append(button);
  }

  for (let c = 0; c < 3; c++) {
    const select = element("select");
    select.setAttribute("aria-label", `corner ${c + 1}`);
    classNames.forEach((name, k) => select.append(new Option(name, k)));
    select.addEventListener("change", () => {
      const others = corners.filter((_, other) => other !== c), taken = others.indexOf(Number(select.value));
      if (taken >= 0) others[taken] = corners[c]; // two corners change places
      others.splice(c, 0, Number(select.value));
      setCorners(others);
    });
    byId("corners").append(select);
  }
  byId("views").hidden = K < 4;
  slider.max = END;
  slider.addEventListener("input", () => {
    play(false);
    setTime(Number(slider.value));
  });
  byId("play").addEventListener("click", () => play(!playing));
  byId("next").addEventListener("click", () => visit(order[order.indexOf(stop) + 1]));
  for (const id of ["circle", "tour", "triangle"]) byId(id).addEventListener("click", () => setView(id));
  for (const type of ["pointerdown", "pointermove"]) byId("chart").addEventListener(type, scrub);
  document.addEventListener("keydown", onKey);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", measure);
  new ResizeObserver(measure).observe(canvas);
  B.set(mapOf("circle"));
  measure();
  setView("circle");
  goTo(EVERYTHING);

  /** #stop=3&step=6 shows that, paused: for links and pictures. */
  const asked = new URLSearchParams(location.hash.slice(1));
  const wanted = Number(asked.get("stop") ?? EVERYTHING);
  if (asked.has("stop") && order.includes(wanted)) goTo(wanted);
  if (asked.has("step")) setTime(steps.findIndex((step) => step >= Number(asked.get("step"))));
  else play(!still.matches);
})();
