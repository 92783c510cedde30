// Elements, and numbers for people.

/** Make an element; children that are text stay text. */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function bytes(n) {
  if (!Number.isFinite(n)) return "?";
  if (n < 1000) return `${n} B`;
  const power = Math.min(4, Math.floor(Math.log10(n) / 3));
  return `${(n / 1000 ** power).toPrecision(n / 1000 ** power < 100 ? 3 : 4)} ${" kMGT"[power]}B`;
}

/** A number in at most about seven characters. */
export function brief(x) {
  if (typeof x !== "number") return String(x);
  if (!Number.isFinite(x)) return String(x);
  if (Number.isInteger(x) && Math.abs(x) < 1e7) return String(x);
  const a = Math.abs(x);
  return a >= 1e7 || a < 1e-3 ? x.toExponential(2) : String(+x.toPrecision(5));
}

/** Round up to two digits, for the ends of scales. */
export function rounded(x) {
  if (!(x > 0)) return 1;
  const unit = 10 ** (Math.floor(Math.log10(x)) - 1);
  return +(Math.ceil(x / unit - 1e-9) * unit).toPrecision(2);
}

export function decibels(psnr) {
  return typeof psnr === "number" ? `${psnr.toFixed(2)} dB` : "";
}

/** What went wrong, in words. */
export function words(error) {
  return error?.message || String(error);
}
