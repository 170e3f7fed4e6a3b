"use strict"; // what the scripts of all pages share; the script of a page follows it
const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);

function notify(text) {
  byId("notice").hidden = false;
  byId("notice").textContent = text;
}

/** What a key means: the character typed, on a keyboard of other letters the one that stands there on a Latin one. */
function keyOf({ key, code }) {
  if (key.length > 1) return key;
  return (/^[\x20-\x7e]$/.test(key) ? key : code.replace(/^(Key|Digit)/, "")).toLowerCase();
}

function bytesFrom(base64) {
  return Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
}

function pictureFrom(base64) {
  const image = new Image();
  image.src = `data:image/webp;base64,${base64}`;
  return image;
}

function element(tag, classes, text) {
  const made = document.createElement(tag);
  if (classes) made.className = classes;
  if (text !== undefined) made.textContent = text;
  return made;
}

function drawn(tag, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

