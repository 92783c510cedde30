// Section 2.2: types, and how numbers become values of them.

const DOUBLE = new Float64Array(1);
const BITS = new Uint32Array(DOUBLE.buffer);
const BITS_OF = { f4: Uint32Array, f8: BigUint64Array };
export const LARGEST = { float16: 65504, float32: (2 - 2 ** -23) * 2 ** 127, float64: Number.MAX_VALUE };

// [name, numpy's letter and bytes, array that holds it]. Values of float16 are kept as bits; `Bits` is what copies
// values of a type, since a NaN that passes through a number may lose its payload.
export const TYPES = [
  ["int8", "i1", Int8Array],
  ["int16", "i2", Int16Array],
  ["int32", "i4", Int32Array],
  ["int64", "i8", BigInt64Array],
  ["uint8", "u1", Uint8Array],
  ["uint16", "u2", Uint16Array],
  ["uint32", "u4", Uint32Array],
  ["uint64", "u8", BigUint64Array],
  ["float16", "f2", Uint16Array],
  ["float32", "f4", Float32Array],
  ["float64", "f8", Float64Array],
  ["bool", "b1", Uint8Array],
].map(([name, short, Store]) => {
  return { name, short, Store, Bits: BITS_OF[short] ?? Store, kind: short[0], size: +short[1] };
});

export const PATTERNS = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array };

/** The type of a name as Zarr's "int16" or numpy's "<i2", or undefined. */
export function typeOf(name) {
  const short = name.replace(/^[<>|=]/, "");
  return TYPES.find((t) => t.name === name || t.short === short);
}

/** Round a number to float16, ties to even; return its bits. */
export function toHalf(x) {
  DOUBLE[0] = x;
  const sign = (BITS[1] >>> 16) & 0x8000;
  const exponent = (BITS[1] >>> 20) & 2047;
  const a = Math.abs(x);
  if (a !== a) return sign | 0x7e00;
  if (a >= 65520) return sign | 0x7c00;
  const e = Math.max(exponent - 1023, -14);
  const steps = a * 2 ** (10 - e) + 2 ** 52 - 2 ** 52; // below 2^11: adding 2^52 rounds, ties to even
  return sign | (steps + (e + 14) * 1024);
}

export function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const e = (bits >>> 10) & 31;
  const m = bits & 1023;
  if (e === 31) return m ? NaN : sign * Infinity;
  return sign * (e ? (1024 + m) * 2 ** (e - 25) : m * 2 ** -24);
}

/** Round to a floating-point type, into an array of its kind. */
export function rounder(type) {
  return type.name === "float16" ? toHalf : (x) => x;
}

/** Values as doubles from an array of a floating-point type. */
export function widener(type) {
  return type.name === "float16" ? fromHalf : (x) => x;
}

/** Write an exact integer of 64 bits that is given as a double. */
export function put64(halves, i, x) {
  const high = Math.floor(x / 2 ** 32);
  halves[2 * i] = x - high * 2 ** 32;
  halves[2 * i + 1] = high;
}

/** Section 5: refuse an exponent and limits that lead out of a type. */
export function checkOutputs(r, type, e, low, high) {
  r.check(low <= high, "low", `${low} is above ${high}`);
  if (type.kind === "f") {
    r.check(Math.abs(e) <= 100, "exponent", `${e} is not in -100..100`);
    const most = Math.max(Math.abs(low), Math.abs(high)) * 2 ** e;
    r.check(most <= LARGEST[type.name], "exponent", `${most} is not in the range of ${type.name}`);
  } else {
    r.check(e >= 0 && e <= 40, "exponent", `${e} is not in 0..40`);
    const bits = 8 * type.size - (type.kind === "i");
    const inside = low * 2 ** e >= (type.kind === "i" ? -(2 ** bits) : 0) && high * 2 ** e < 2 ** bits;
    r.check(inside, "exponent", `${low} 2^${e} and ${high} 2^${e} are not in the range of ${type.name}`);
  }
}

/** n 2^e of each number, as an array of the type. */
export function scaled(type, numbers, e) {
  const out = new type.Store(numbers.length);
  const factor = 2 ** e;
  if (type.size === 8 && type.kind !== "f") {
    const halves = new Uint32Array(out.buffer);
    for (let i = 0; i < numbers.length; i++) put64(halves, i, numbers[i] * factor);
  } else if (type.name === "float16") {
    for (let i = 0; i < numbers.length; i++) out[i] = toHalf(numbers[i] * factor);
  } else {
    for (let i = 0; i < numbers.length; i++) out[i] = numbers[i] * factor;
  }
  return out;
}

/** 8.2, kind 0: values from bit patterns in numerical order, in place. Those of 8 bytes are two halves each. */
export function unorder(type, u) {
  const halves = type.size / u.BYTES_PER_ELEMENT;
  const top = 2 ** ((8 * type.size) / halves - 1);
  for (let i = halves - 1; i < u.length && "if".includes(type.kind); i += halves) {
    if (type.kind === "i" || u[i] >= top) u[i] ^= top;
    else {
      u[i] = ~u[i];
      if (halves === 2) u[i - 1] = ~u[i - 1];
    }
  }
  return new type.Store(u.buffer);
}
