// DOM helpers. Untrusted data is only inserted as text or attribute values, never as markup.

/**
 * Creates an element. Functions are event listeners (`onclick`); true sets an attribute, false omits it.
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

/** Sets a text only if it changed, which keeps selections and avoids repeated announcements of screen readers. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Creates a message line that shows current errors of independent topics. */
export function notice() {
  /** @type {Map<string, string>} */
  const texts = new Map();
  const element = el("p", { class: "note", role: "status", hidden: true });
  return {
    element,
    /** Sets the error of a topic; an empty text clears it. */
    set(topic, text) {
      texts.set(topic, text);
      const unique = new Set([...texts.values()].filter(Boolean));
      element.hidden = unique.size === 0;
      setText(element, [...unique].join(" "));
    },
  };
}

const rendered = new WeakMap();

/**
 * Updates the children of `parent` to show `items` in order. The element of a key is reused, which keeps focus and
 * selection.
 * @template T
 * @param {Element} parent
 * @param {Iterable<T>} items
 * @param {(item: T) => string | number} keyOf
 * @param {(item: T) => {element: Element, update: (item: T) => void}} create
 */
export function reconcile(parent, items, keyOf, create) {
  const before = rendered.get(parent) ?? new Map();
  const now = new Map();
  let next = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    const view = before.get(key) ?? create(item);
    before.delete(key);
    now.set(key, view);
    view.update(item);
    if (view.element === next) next = next.nextElementSibling;
    else parent.insertBefore(view.element, next);
  }
  for (const view of before.values()) view.element.remove();
  rendered.set(parent, now);
}

/** Announces `text` to screen readers. */
export const announce = (text) => { document.getElementById("announcer").textContent = text; };
