// Runs before the code of a retriever, in its context. Some functions of the language loop in one go, where no limit of
// time can stop them: over arrays with holes, and over texts that are searched in texts. They are bounded here. Gives a
// function that answers what was written to the console, with a NUL after each line.
(function () {
  "use strict";
  const MOST_ITEMS = 5e6, MOST_STEPS = 2e9, MOST_LINES = 100, MOST_CHARACTERS = 500;
  const isArray = Array.isArray, apply = Reflect.apply, String_ = String;
  const define = Object.defineProperty, describe = Object.getOwnPropertyDescriptor;
  const stringify = JSON.stringify, names = Object.getOwnPropertyNames;
  const replace = (owner, name, value) => {
    const found = describe(owner, name);
    define(owner, name, { value, writable: true, configurable: true, enumerable: found.enumerable });
  };
  for (const name of names(Array.prototype)) {
    const method = Array.prototype[name];
    if (typeof method !== "function" || name === "constructor") continue;
    replace(Array.prototype, name, function (...given) {
      if (!isArray(this)) throw new TypeError(`Array.prototype.${name} works on arrays only`);
      if (this.length > MOST_ITEMS) throw new RangeError(`an array of ${this.length} items is too long`);
      if (name === "concat") {
        for (let i = 0; i < given.length; i++) {
          if (isArray(given[i]) && given[i].length > MOST_ITEMS) throw new RangeError("an array is too long");
        }
      }
      return apply(method, this, given);
    });
  }
  for (const name of ["indexOf", "lastIndexOf", "includes", "split", "replaceAll", "replace"]) {
    const method = String.prototype[name];
    replace(String.prototype, name, function (...given) {
      const text = String_(this);
      if (typeof given[0] === "string" && text.length * given[0].length > MOST_STEPS) {
        throw new RangeError("the texts are too long to look for one in the other");
      }
      return apply(method, text, given);
    });
  }
  const slice = String.prototype.slice;
  let lines = 0, written = "";
  const show = (value) => {
    if (typeof value === "string") return value;
    try {
      const text = stringify(value);
      return text === undefined ? String_(value) : text;
    } catch {
      return "?";
    }
  };
  const write = (...values) => {
    if (lines >= MOST_LINES) return;
    let line = "";
    for (let i = 0; i < values.length; i++) line += (i ? " " : "") + show(values[i]);
    written += apply(slice, line, [0, MOST_CHARACTERS]) + "\0";
    lines++;
  };
  globalThis.console = { log: write, info: write, warn: write, error: write, debug: write };
  for (const name of ["Atomics", "SharedArrayBuffer", "WeakRef", "FinalizationRegistry", "Proxy"]) delete globalThis[name];
  return () => written;
})();
