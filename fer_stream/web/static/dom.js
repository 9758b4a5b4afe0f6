// Elements. What comes from outside goes in as text or as the value of an attribute, never as markup.

/**
 * Makes an element. A property that begins with "on" is a listener; true sets an attribute, false leaves it out.
 * @param {string} tag
 * @param {Record<string, string | number | boolean | ((event: any) => void)>} properties
 * @param {...(Node | string)} children
 */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children);
  return element;
}

/** Changes a text only where it differs, so that a selection stays and a screen reader repeats nothing. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A line that is there while something is wrong. Things are wrong independently of each other. */
export function notice() {
  /** @type {Map<string, string>} */
  const told = new Map();
  const element = el("p", { class: "note", role: "status", hidden: true });
  return {
    element,
    /** Says what is wrong with `thing`, nothing where `text` is empty. */
    tell(thing, text) {
      told.set(thing, text);
      const texts = new Set([...told.values()].filter(Boolean));
      element.hidden = texts.size === 0;
      say(element, [...texts].join(" "));
    },
  };
}

const kept = new WeakMap();

/**
 * Makes the children of `parent` show `items` in order. An element stays as long as the key of its item does, and with
 * it focus and selection.
 * @template T
 * @param {Element} parent
 * @param {Iterable<T>} items
 * @param {(item: T) => string | number} keyOf
 * @param {(item: T) => {element: Element, update: (item: T) => void}} create
 */
export function keep(parent, items, keyOf, create) {
  const before = kept.get(parent) ?? new Map();
  const now = new Map();
  let next = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    const part = before.get(key) ?? create(item);
    before.delete(key);
    now.set(key, part);
    part.update(item);
    if (part.element === next) next = next.nextElementSibling;
    else parent.insertBefore(part.element, next);
  }
  for (const part of before.values()) part.element.remove();
  kept.set(parent, now);
}

/** Lets a screen reader say `text` once. */
export const announce = (text) => { document.getElementById("announcer").textContent = text; };
