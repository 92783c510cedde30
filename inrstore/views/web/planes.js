// Section 8: mode 2, planes of bytes. Indices of 8 bytes are two halves of 32 bits.
import { product } from "./bytes.js";
import { inflate } from "./inflate.js";
import { LARGEST, PATTERNS, rounder, unorder } from "./types.js";

export function planes(r, type, box) {
  const kind = r.u8("kind");
  const fitting = { 0: "iufb", 1: "iu", 2: "f", 3: "iufb" }[kind] ?? "";
  r.check(fitting.includes(type.kind), "kind", `${kind} does not fit ${type.name}`);
  const channel = r.u8("channel_axis");
  const stepped = kind === 1 || kind === 2;
  r.check(channel === 255 || (stepped && channel < box.length), "channel_axis", `${channel} is no axis`);
  let [low, high, steps, width] = [0, 0, [], type.size];
  if (stepped) {
    const number = kind === 2 ? "f64" : type.kind === "i" ? "i64" : "u64";
    [low, high] = [r[number]("range"), r[number]("range")];
    r.check(low <= high && inRange(type, low) && inRange(type, high), "range", `${low} to ${high}`);
    steps = r.many(kind === 2 ? "f64" : "u64", channel === 255 ? 1 : box[channel], "steps");
    r.check(steps.every((s) => s > 0 && s < Infinity), "steps", "one is not positive and finite");
    width = r.u8("width");
    r.check([1, 2, 4, 8].includes(width) && width <= type.size, "width", `${width} is no width`);
  }
  const axes = kind === 3 ? 0 : r.u8("axes");
  r.check(axes >> box.length === 0, "axes", `${axes} has reserved bits`);
  const n = product(box);
  const bytes = inflated(r.rest(), n * width, (text) => r.fail("data", text));
  if (kind === 3) return new type.Store(bytes.buffer);

  const u = undo(bytes, width, box, axes);
  if (kind === 0) return unorder(type, u);
  const out = new type.Store(n);
  const inner = channel === 255 ? 1 : product(box.slice(channel + 1));
  const index = width < 8 ? (i) => u[i] : (i) => u[2 * i + 1] * 2 ** 32 + u[2 * i];
  if (kind === 2) {
    const round = rounder(type);
    for (let i = 0; i < n; i++) {
      const value = low + index(i) * steps[steps.length > 1 ? Math.floor(i / inner) % steps.length : 0];
      out[i] = round(value < low ? low : value > high ? high : value);
    }
  } else {
    const exact = width < 8 ? (i) => BigInt(u[i]) : (i) => (BigInt(u[2 * i + 1]) << 32n) + BigInt(u[2 * i]);
    const range = high - low;
    const small = -low <= 2n ** 52n && high <= 2n ** 52n && width < 8 && type.size < 8;
    const plain = steps.map(Number); // a product that is rounded is far above the range
    for (let i = 0; i < n; i++) {
      const c = steps.length > 1 ? Math.floor(i / inner) % steps.length : 0;
      if (small) out[i] = Number(low) + Math.min(u[i] * plain[c], Number(range));
      else {
        const above = exact(i) * steps[c];
        const value = low + (above < range ? above : range);
        out[i] = type.size < 8 ? Number(value) : value;
      }
    }
  }
  return out;
}

function inRange(type, x) {
  if (type.kind === "f") return Math.abs(x) <= LARGEST[type.name];
  const bits = BigInt(8 * type.size - (type.kind === "i"));
  return x < 2n ** bits && x >= (type.kind === "i" ? -(2n ** bits) : 0n);
}

/** Inflate to a known size; `fail` tells what is wrong in the name of the field. */
export function inflated(bytes, size, fail) {
  try {
    return inflate(bytes, size);
  } catch (error) {
    return fail(`its zlib stream: ${error.message}`);
  }
}

/** 8.1: the indices of values from the planes of their bytes. */
export function undo(bytes, width, box, axes) {
  const n = bytes.length / width;
  const u = new PATTERNS[Math.min(width, 4)](width === 8 ? 2 * n : n);
  const halves = width / u.BYTES_PER_ELEMENT;
  for (let b = 0; b < width; b++) {
    const [from, half, shift] = [b * n, b >> 2, 8 * (b & 3)];
    for (let i = 0; i < n; i++) u[i * halves + half] |= bytes[from + i] << shift;
  }
  if (!axes) return u;
  if (width < 8) for (let i = 0; i < n; i++) u[i] = (u[i] >>> 1) ^ -(u[i] & 1);
  else {
    for (let i = 0; i < 2 * n; i += 2) {
      const sign = -(u[i] & 1);
      [u[i], u[i + 1]] = [((u[i] >>> 1) | (u[i + 1] << 31)) ^ sign, (u[i + 1] >>> 1) ^ sign];
    }
  }
  for (let axis = 0; axis < box.length; axis++) {
    if ((axes >> axis) & 1) sums(u, box[axis], product(box.slice(axis + 1)), halves);
  }
  return u;
}

/** Running sums along an axis of this length, with `inner` values in each of its places. */
export function sums(u, length, inner, halves) {
  const block = length * inner;
  for (let start = 0; start * halves < u.length; start += block) {
    for (let i = start + inner; i < start + block; i++) {
      if (halves === 1) u[i] += u[i - inner];
      else {
        const j = 2 * (i - inner);
        const low = u[2 * i] + u[j];
        u[2 * i + 1] += u[j + 1] + (low >= 2 ** 32 ? 1 : 0);
        u[2 * i] = low;
      }
    }
  }
}
