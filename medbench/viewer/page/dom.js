"use strict";

// Making elements. Texts become text nodes and nothing else: whatever the data say, they are shown.

/** Return an element with attributes and children; functions become listeners, null is left out. */
function make(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Return an element of a drawing. */
function draw(tag, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

/** Return words that are there for screen readers only. */
function unseen(words) {
  return make("span", { class: "unseen" }, words);
}

function byId(id) {
  return document.getElementById(id);
}
