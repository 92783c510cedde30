// Section 4: the box, exceptions, mask and numbers around what a mode codes.
import { Reader, product } from "./bytes.js";
import { readMask } from "./mask.js";
import { inflated, sums, undo } from "./planes.js";
import { TYPES, rounder, unorder, widener } from "./types.js";

/** Read an envelope: the box, the type of its numbers, and `finish`, which makes the chunk of what a mode gives. */
export function readEnvelope(r, type, shape) {
  const scope = r.scope;
  r.scope = "envelope";
  const flags = r.u8("flags");
  r.check(flags < 16 && (type.kind === "f" || !(flags & 10)), "flags", `${flags} for ${type.name}`);
  const [hasBox, hasExceptions, hasMask, hasNumbers] = [1, 2, 4, 8].map((bit) => (flags & bit) !== 0);
  const start = hasBox ? r.many("u32", shape.length, "start") : shape.map(() => 0);
  const stop = hasBox ? r.many("u32", shape.length, "stop") : shape;
  r.check(shape.every((n, a) => start[a] < stop[a] && stop[a] <= n), "stop", `${start} to ${stop} of ${shape}`);
  const box = shape.map((_, a) => stop[a] - start[a]);
  const n = product(box);
  let fill = new type.Bits(1)[0];
  if (hasBox || hasMask) {
    const bytes = r.take(type.size, "fill");
    r.check(type.kind !== "b" || bytes[0] <= 1, "fill", `${bytes[0]} is no truth value`);
    [fill] = new type.Bits(bytes.slice().buffer);
  }
  let mask;
  if (hasMask) {
    const axes = r.u8("mask_axes");
    r.check(axes >> shape.length === 0, "mask_axes", `${axes} has reserved bits`);
    const lengths = box.map((length, a) => ((axes >> a) & 1 ? length : 1));
    const coded = new Reader(r.prefixed("mask"), "envelope.mask");
    mask = { lengths, bits: readMask(coded, lengths.filter((_, a) => (axes >> a) & 1)) }; // prettier-ignore
  }
  let exceptions;
  if (hasExceptions) {
    const places = inflated(r.prefixed("exceptions"), Math.ceil(n / 8), (text) => r.fail("exceptions", text));
    let count = 0;
    for (let i = 0; i < 8 * places.length; i++) {
      if ((places[i >> 3] >> (7 - (i & 7))) & 1) {
        r.check(i < n, "exceptions", "bits after the last are set");
        count++;
      }
    }
    const bytes = inflated(r.prefixed("values"), count * type.size, (text) => r.fail("values", text));
    exceptions = { places, values: new type.Bits(bytes.buffer) };
  }
  const numbers = hasNumbers ? readNumbers(r, type) : null;
  r.scope = scope;

  const finish = (coded) => {
    const values = new type.Bits((numbers ? numbers.values(coded) : coded).buffer);
    if (exceptions) {
      for (let i = 0, next = 0; i < n; i++) {
        if ((exceptions.places[i >> 3] >> (7 - (i & 7))) & 1) values[i] = exceptions.values[next++];
      }
    }
    if (mask) {
      eachRow(box, mask.lengths, (at, from, step) => {
        for (let i = 0, end = box.at(-1) ?? 1; i < end; i++) if (!mask.bits[from + i * step]) values[at + i] = fill;
      });
    }
    if (!hasBox) return new type.Store(values.buffer);
    const chunk = new type.Bits(product(shape)).fill(fill);
    const first = start.reduce((at, s, a) => at * shape[a] + s, 0);
    const row = box.at(-1) ?? 1;
    eachRow(box, shape, (at, from) => chunk.set(values.subarray(at, at + row), first + from));
    return new type.Store(chunk.buffer);
  };
  return { box, type: numbers?.type ?? type, finish };
}

/**
 * Call `visit(at, from, step)` for each row of the box: where it begins in the box, and in an array with these lengths,
 * and its step there along the row. Axes of length 1 of that array stay.
 */
function eachRow(box, lengths, visit) {
  const strides = lengths.map((n, a) => (n === 1 ? 0 : product(lengths.slice(a + 1))));
  const place = box.map(() => 0);
  const row = box.at(-1) ?? 1;
  for (let at = 0, end = product(box); at < end; at += row) {
    visit(at, place.reduce((sum, p, a) => sum + p * strides[a], 0), strides.at(-1) ?? 0);
    for (let a = box.length - 2; a >= 0 && ++place[a] === box[a]; a--) place[a] = 0;
  }
}

/** 4.2: the type of the numbers, and how values follow from them. */
function readNumbers(r, type) {
  r.scope = "numbers";
  const coding = r.choice("u8", "coding", 3);
  const code = r.u8("type");
  const inner = TYPES[code - 1];
  const allowed = [(t) => t.kind === "f" && t.size < type.size, (t) => /^[iu][124]$/.test(t.short),
                   (t) => /^[iu][124]$/.test(t.short), (t) => /^u[12]$/.test(t.short)][coding]; // prettier-ignore
  r.check(inner && allowed(inner), "type", `${code} does not fit coding ${coding} of ${type.name}`);
  const round = rounder(type);
  if (coding === 0) {
    const wide = widener(inner);
    return { type: inner, values: (numbers) => each(type, numbers, (k) => {
      const value = wide(k);
      if (Number.isNaN(value)) new Reader(r.bytes, "numbers").fail("coding", "a number is NaN");
      return round(value);
    }) }; // prettier-ignore
  }
  if (coding < 3) {
    const [a, b] = r.many("f64", 2, "factor");
    r.check(Number.isFinite(a) && a !== 0, "factor", `it is ${a}`);
    r.check(Number.isFinite(b), "offset", `it is ${b}`);
    const scale = coding === 1 ? (k) => k * a : (k) => k / a;
    return { type: inner, values: (numbers) => each(type, numbers, (k) => round(b ? scale(k) + b : scale(k))) };
  }
  const n = r.limited("u32", "entries", 1, 256 ** inner.size);
  const differences = r.choice("u8", "differences", 4);
  const bytes = inflated(r.prefixed("table"), n * type.size, (text) => r.fail("table", text));
  const u = undo(bytes, type.size, [n], 0);
  for (let m = 0; m < differences; m++) sums(u, n, 1, u.length / n);
  const entries = new type.Bits(unorder(type, u).buffer);
  return { type: inner, values: (numbers) => each(type, numbers, (k) => {
    if (k >= n) new Reader(r.bytes, "numbers").fail("entries", `there is no entry ${k}`);
    return entries[k];
  }, type.Bits) }; // prettier-ignore
}

function each(type, numbers, value, Store = type.Store) {
  const out = new Store(numbers.length);
  for (let i = 0; i < numbers.length; i++) out[i] = value(numbers[i]);
  return out;
}
