// What every section reads with: fields, matrices (12.3), bits, CRC32C, SHA-256.

/** What is wrong with a frame. `field` is the name of a field in the specification, `code` the kind of error. */
export class ChunkError extends Error {
  constructor(field, text, code = "CorruptChunkError") {
    super(`${field}: ${text}`);
    this.name = "ChunkError";
    this.field = field;
    this.code = code;
  }
}

export const product = (list) => list.reduce((a, b) => a * b, 1);

/** The same bytes as a Uint8Array and no more: to slice a Buffer of Node copies nothing. */
export const plain = (bytes) => new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** Fields in the order of the bytes. `scope` stands before the names of fields in errors. */
export class Reader {
  constructor(bytes, scope = "") {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = 0;
    this.scope = scope;
  }

  get left() {
    return this.bytes.length - this.at;
  }

  fail(field, text, code) {
    throw new ChunkError(this.scope ? `${this.scope}.${field}` : field, text, code);
  }

  /** Refuse bytes that no encoder makes. */
  check(ok, field, text) {
    if (!ok) this.fail(field, text);
  }

  /** Refuse a number beyond a limit of the format. */
  limit(ok, field, text) {
    if (!ok) this.fail(field, text, "LimitExceededError");
  }

  skip(size, field) {
    if (size > this.left) this.fail(field, `${size} bytes are to come, ${this.left} are there`);
    this.at += size;
    return this.at - size;
  }

  take(size, field) {
    const at = this.skip(size, field);
    return this.bytes.subarray(at, at + size);
  }

  rest() {
    return this.take(this.left, "");
  }

  prefixed(field) {
    return this.take(this.u32(field), field);
  }

  /** A number that the format limits to low..high. */
  limited(kind, field, low, high) {
    const n = this[kind](field);
    this.limit(n >= low && n <= high, field, `${n} is not in ${low}..${high}`);
    return n;
  }

  /** A number above whose `most` all are reserved. */
  choice(kind, field, most) {
    const n = this[kind](field);
    this.check(n <= most, field, `${n} is reserved`);
    return n;
  }

  positive(kind, field) {
    const n = this[kind](field);
    this.check(n > 0, field, "it is 0");
    return n;
  }

  /** `count` numbers of one kind, as "u16". */
  many(kind, count, field) {
    if (count * (kind.slice(1) / 8) > this.left) this.fail(field, "bytes are missing");
    return Array.from({ length: count }, () => this[kind](field));
  }

  /** 12.3: a matrix, row by row. The caller has checked rows and columns. */
  matrix(rows, columns, field) {
    const codes = this.take(columns, field);
    for (const code of codes) {
      const c = code % 128;
      this.limit(c <= 40 || (c >= 64 && c <= 98), field, `a column has the code ${code}`);
    }
    const bits = new Bits(this.bytes.subarray(this.at), () => this.fail(field, "bits are missing"));
    const out = new Float64Array(rows * columns);
    for (let c = 0; rows && c < columns; c++) {
      const width = codes[c] % 64;
      for (let r = 0; codes[c] % 128 >= 64 && r < rows; r++) {
        while (!bits.take(1)) this.check(++out[r * columns + c] <= 63, field, "64 zeros in front of a number");
      }
      for (let r = 0; r < rows; r++) out[r * columns + c] = out[r * columns + c] * 2 ** width + bits.take(width);
    }
    this.check(bits.padded(), field, "bits after the last are set");
    this.take(bits.at / 8, field);
    for (let i = 0; i < out.length; i++) {
      const y = out[i] % 2 ? -1 - (out[i] - 1) / 2 : out[i] / 2;
      out[i] = codes[i % columns] < 128 || i < columns ? y : y + out[i - columns];
      this.limit(Math.abs(out[i]) <= 2 ** 39, field, "a number is beyond 2^39");
    }
    return out;
  }
}

// r.u8(field) and so on
for (const [kind, method] of Object.entries({ u8: "Uint8", i8: "Int8", u16: "Uint16", u32: "Uint32", i32: "Int32",
                                              u64: "BigUint64", i64: "BigInt64", f64: "Float64" })) {
  const size = kind.slice(1) / 8;
  Reader.prototype[kind] = function (field) {
    return this.view[`get${method}`](this.skip(size, field), true);
  };
} // prettier-ignore

/** Numbers of bits, the least significant first. */
export class Bits {
  constructor(bytes, missing) {
    this.bytes = bytes;
    this.at = 0;
    this.missing = missing;
  }

  take(width) {
    if (width > 24) return this.take(24) + this.take(width - 24) * 2 ** 24;
    const { bytes, at } = this;
    if (at + width > bytes.length * 8) this.missing();
    this.at += width;
    const i = at >>> 3;
    const word = bytes[i] | (bytes[i + 1] << 8) | (bytes[i + 2] << 16) | (bytes[i + 3] << 24);
    return (word >>> (at & 7)) & ((1 << width) - 1);
  }

  /** Go on to the next byte; true if the bits before it are 0. */
  padded() {
    return this.take(-this.at & 7) === 0;
  }

  /** True if less than a byte is left, and that is 0. */
  clean() {
    const left = this.bytes.length * 8 - this.at;
    return left < 8 && this.take(left) === 0;
  }
}

const CRC = new Uint32Array(1024);
for (let i = 0; i < 1024; i++) {
  let c = i < 256 ? i : CRC[i - 256];
  if (i < 256) for (let k = 0; k < 8; k++) c = (c >>> 1) ^ (c & 1 && 0x82f63b78);
  else c = (c >>> 8) ^ CRC[c & 255];
  CRC[i] = c;
}

export function crc32c(bytes) {
  let c = -1;
  let i = 0;
  for (; i + 4 <= bytes.length; i += 4) {
    c ^= bytes[i] | (bytes[i + 1] << 8) | (bytes[i + 2] << 16) | (bytes[i + 3] << 24);
    c = CRC[768 + (c & 255)] ^ CRC[512 + ((c >>> 8) & 255)] ^ CRC[256 + ((c >>> 16) & 255)] ^ CRC[c >>> 24];
  }
  for (; i < bytes.length; i++) c = (c >>> 8) ^ CRC[(c ^ bytes[i]) & 255];
  return ~c >>> 0;
}

const PRIMES = [];
for (let n = 2; PRIMES.length < 64; n++) if (PRIMES.every((p) => n % p)) PRIMES.push(n);
const fraction = (x) => ((x - Math.floor(x)) * 2 ** 32) | 0;

const DIGESTS = new WeakMap();

/** True if the SHA-256 of a shared parameter begins with these bytes. */
export function isNamed(bytes, name) {
  if (!DIGESTS.has(bytes)) DIGESTS.set(bytes, sha256(bytes));
  return name.every((byte, i) => byte === DIGESTS.get(bytes)[i]);
}

/** SHA-256 as bytes: pages without https have none of their own. */
export function sha256(bytes) {
  const padded = new Uint8Array((((bytes.length + 8) >>> 6) + 1) * 64);
  padded.set(bytes);
  padded[bytes.length] = 128;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 8, Math.floor(bytes.length / 2 ** 29));
  view.setUint32(padded.length - 4, bytes.length << 3);
  const state = PRIMES.slice(0, 8).map((p) => fraction(Math.sqrt(p)));
  const w = new Int32Array(64);
  const turn = (x, n) => (x >>> n) | (x << (32 - n));
  for (let at = 0; at < padded.length; at += 64) {
    for (let i = 0; i < 64; i++) {
      if (i < 16) w[i] = view.getInt32(at + 4 * i);
      else {
        const [x, y] = [w[i - 15], w[i - 2]];
        w[i] = w[i - 16] + (turn(x, 7) ^ turn(x, 18) ^ (x >>> 3)) + w[i - 7] + (turn(y, 17) ^ turn(y, 19) ^ (y >>> 10));
      }
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let i = 0; i < 64; i++) {
      const s = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + K[i] + w[i]) | 0;
      const t = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [h, g, f, e, d, c, b, a] = [g, f, e, (d + s) | 0, c, b, a, (s + t) | 0];
    }
    [a, b, c, d, e, f, g, h].forEach((x, i) => (state[i] = (state[i] + x) | 0));
  }
  const out = new DataView(new ArrayBuffer(32));
  state.forEach((x, i) => out.setInt32(4 * i, x));
  return new Uint8Array(out.buffer);
}
const K = PRIMES.map((p) => fraction(Math.cbrt(p)));
