// Sections 14.3 to 14.6: the coefficients of subbands, coded with counts that follow what was decoded.
import { product } from "./bytes.js";

const PASSES = [[0, 7], [6, 1], [5, 2], [3, 4]]; // prettier-ignore
const ESCAPE = 17;
const NEXT = [0, 2, 2, 0, 4, 6, 6, 4, 5, 7, 7, 5, 1, 3, 3, 1]; // 14.6: the state after a state and a flag
const quietBits = (c) => Math.max(0, (c >> 2) - 10);

/** Section 12.6, point 6: the context of an expected magnitude. */
export function contextOf(e) {
  if (e < 32) return 0;
  if (e >= 2 ** 24) return 63;
  const j = 31 - Math.clz32(e);
  return Math.min(63, 4 * (j - 5) + ((e >> (j - 2)) & 3));
}

/** Decode all subbands: each gets `q`, its coefficients with components first. */
export function decodeSubbands(r, { subbands, levels, weights, trellis }, lanes, bits, signs) {
  const stream = new Lanes(r, lanes);
  const counts = { ...startCounts(), state: 0, trellis };
  let nonzero = 0;
  subbands.forEach((band, index) => {
    band.q = new Int32Array(band.active * band.size);
    band.padded = new Padded(band);
    if (!band.active) return;
    const kind = band.key[0] + band.key[1] + band.key[2];
    const before = index ? subbands.slice(1, index) : [];
    const siblings = before.filter((s) => s.level === band.level);
    const parent = before.filter((a) => a.level === band.level + 1 && a.key.every((digit, i) => digit === band.key[i]));
    const around = Array.from({ length: band.active }, (_, k) => ({
      parent: resample(band, k, parent, levels, true),
      siblings: resample(band, k, siblings, levels, false),
    }));
    for (let pass = 0; pass < 4; pass++) {
      const rows = weights.subarray(9 * (4 * kind + pass), 9 * (4 * kind + pass) + 9);
      nonzero += decodePass(r, band, pass, rows, around, counts, stream, bits);
    }
  });
  r.check(bits.clean(), "bits", "bits are left over");
  stream.finish();
  readSigns(r, subbands, stream.x, signs, nonzero);
}

/** Magnitudes of a subband up to 255, with zeros around those of each component. */
class Padded {
  constructor({ n, active }) {
    this.strides = [(n[1] + 2) * (n[2] + 2), n[2] + 2, 1];
    this.size = (n[0] + 2) * this.strides[0];
    this.first = this.strides[0] + this.strides[1] + 1;
    this.values = new Uint8Array(active * this.size);
  }
}

/** Magnitudes of component k of other subbands at the positions of `band`, summed, padded as its own. */
function resample(band, k, others, levels, coarser) {
  const found = others.filter((from) => k < from.active && from.size);
  if (!found.length) return null;
  const target = band.padded;
  const out = new Uint16Array(target.size);
  for (const from of found) {
    const source = from.padded;
    const maps = band.n.map((n, a) => Int32Array.from({ length: n }, (_, i) => {
      const half = coarser && band.level + 1 < levels[a] ? i >> 1 : i;
      return Math.min(half, from.n[a] - 1) * source.strides[a];
    })); // prettier-ignore
    for (let z = 0; z < band.n[0]; z++) {
      for (let y = 0; y < band.n[1]; y++) {
        const row = k * source.size + source.first + maps[0][z] + maps[1][y];
        const to = target.first + z * target.strides[0] + y * target.strides[1];
        for (let x = 0; x < band.n[2]; x++) out[to + x] += source.values[row + maps[2][x]];
      }
    }
  }
  return out;
}

/** 14.5: the counts as they begin. */
function startCounts() {
  const flags = new Float64Array(256); // the second half is of a trellis
  const sizes = new Float64Array(64 * 18);
  for (let c = 0; c < 64; c++) {
    const u = [17867, 21247, 25268, 30048][c % 4] * 2 ** (c >> 2);
    const o = Math.floor((1536 * u) / (u + 2 ** 21));
    flags[2 * c] = 1536 - o;
    flags[2 * c + 1] = Math.max(1, o);
    flags[2 * c + 129] = Math.min(2 * flags[2 * c + 1], 1488);
    flags[2 * c + 128] = 1536 - flags[2 * c + 129];
    const v = Math.floor(u / 2 ** quietBits(c));
    const ratio = Math.floor((2 ** 16 * v) / (v + 2 ** 21));
    const w = [2 ** 16];
    for (let s = 1; s < 18; s++) w.push(Math.floor((w[s - 1] * ratio) / 2 ** 16));
    const sum = w.reduce((a, b) => a + b);
    w.forEach((x, s) => (sizes[18 * c + s] = 2 + Math.floor((4096 * x) / sum)));
  }
  return { flags, sizes };
}

function halve(numbers) {
  while (numbers.reduce((a, b) => a + b) > 2 ** 17) numbers.forEach((g, i) => (numbers[i] = (g + 1) >> 1));
}

/** One pass (14.6); returns how many coefficients are not 0. */
function decodePass(r, band, pass, weights, around, counts, stream, bits) {
  const [places, contexts] = expected(band, pass, weights, around);
  const total = contexts.length;
  const { flags, sizes, trellis } = counts;
  const ones = new Uint32Array(128);
  for (let c = 0; c < 128; c++) {
    const [a, b] = [flags[2 * c], flags[2 * c + 1]];
    ones[c] = Math.min(Math.max(Math.floor((65536 * b) / (a + b)), 1), 65535);
  }
  let found = 0;
  const seconds = new Uint8Array(total);
  for (let i = 0; i < total; i++) {
    const c = contexts[i];
    const second = counts.state >> 2;
    const row = c + 64 * second;
    const flag = stream.flag(ones[row]);
    flags[2 * row + flag] += 64;
    if (trellis) counts.state = NEXT[2 * counts.state + flag];
    if (flag) {
      seconds[found] = second;
      places[found] = places[i];
      contexts[found++] = c;
    }
  }
  const starts = sizeStarts(sizes);
  const escapes = [];
  const s = new Int32Array(found);
  for (let i = 0; i < found; i++) {
    const c = contexts[i];
    s[i] = stream.size(starts, 19 * c);
    sizes[18 * c + s[i]] += 64;
    if (s[i] === ESCAPE) escapes.push(i);
  }
  for (let c = 0; c < 128; c++) halve(flags.subarray(2 * c, 2 * c + 2));
  for (let c = 0; c < 64; c++) {
    halve(sizes.subarray(18 * c, 18 * c + 18));
  }
  const zeros = escapes.map(() => {
    let j = 0;
    while (!bits.take(1)) r.limit(++j <= 21, "bits", "an escape of 22 bits or more");
    return j;
  });
  escapes.forEach((i, e) => (s[i] += 2 ** (zeros[e] + 2) - 4 + bits.take(zeros[e] + 2)));
  const { n, padded, q } = band;
  for (let i = 0; i < found; i++) {
    const d = quietBits(contexts[i]);
    const size = 2 ** d * s[i] + (d ? bits.take(d) : 0) + 1;
    r.limit(size <= 2 ** 24, "bits", `a coefficient of ${size}`);
    const at = places[i];
    q[at] = trellis ? 2 * size - seconds[i] : size;
    const [k, rest] = [Math.floor(at / band.size), at % band.size];
    const [z, y] = [Math.floor(rest / (n[1] * n[2])), Math.floor(rest / n[2]) % n[1]];
    padded.values[k * padded.size + padded.first + z * padded.strides[0] + y * padded.strides[1] + (rest % n[2])] =
      Math.min(size, 255);
  }
  return found;
}

/** Starts of the counts of sizes, 19 for each context. */
function sizeStarts(sizes) {
  const starts = new Int32Array(64 * 19);
  for (let c = 0; c < 64; c++) {
    const g = sizes.subarray(18 * c, 18 * c + 18);
    const sum = g.reduce((a, b) => a + b);
    const f = Array.from(g, (x) => 1 + Math.floor((4078 * x) / sum));
    f[g.indexOf(Math.max(...g))] += 4096 - f.reduce((a, b) => a + b);
    f.forEach((x, s) => (starts[19 * c + s + 1] = starts[19 * c + s] + x));
  }
  return starts;
}

/** 14.4: places in `q` and contexts of the values of a pass, in order. */
function expected(band, pass, weights, around) {
  const { n, padded, key, active } = band;
  const parities = PASSES[pass];
  const digits = (p) => [p >> 2, (p >> 1) & 1, p & 1];
  const halves = parities.map((p) => n.map((length, a) => Math.max(0, (length - digits(p)[a] + 1) >> 1)));
  const total = halves.reduce((sum, h) => sum + active * product(h), 0);
  const [places, contexts] = [new Int32Array(total), new Uint8Array(total)];
  let i = 0;
  parities.forEach((p, which) => {
    // Neighbours of earlier passes, as [offset, weight]; those that differ in all three axes are of the same pass.
    const own = [];
    const cross = [];
    for (let o = 0; o < 27; o++) {
      const offset = [Math.floor(o / 9) - 1, (Math.floor(o / 3) % 3) - 1, (o % 3) - 1];
      const differ = offset.filter(Boolean).length;
      const delta = offset.reduce((sum, d, a) => sum + d * padded.strides[a], 0);
      if (differ === 1) cross.push(delta);
      const parity = p ^ (4 * (offset[0] & 1)) ^ (2 * (offset[1] & 1)) ^ (offset[2] & 1);
      if (differ && PASSES.findIndex((pair) => pair.includes(parity)) < pass) {
        const f = differ > 1 ? differ : key[offset.findIndex(Boolean)] ? 0 : 1;
        if (weights[f]) own.push([delta, 16 * weights[f]]);
      }
    }
    const [first, half] = [digits(p), halves[which]];
    if (!product(half)) return;
    const e = new Int32Array(product(half));
    for (let k = 0; k < active; k++) {
      const start = padded.first + first[0] * padded.strides[0] + first[1] * padded.strides[1] + first[2];
      e.fill(weights[8]);
      const add = (values, at, w) => addVolume(e, values, start + at, w, half, padded.strides);
      for (const [delta, w] of own) add(padded.values, k * padded.size + delta, w);
      for (const [values, at] of [[around[k].parent, 4], [around[k].siblings, 6]]) { // prettier-ignore
        if (!values) continue;
        if (weights[at]) add(values, 0, 16 * weights[at]);
        if (weights[at + 1]) for (const delta of cross) add(values, delta, 16 * weights[at + 1]);
      }
      for (let z = 0, j = 0; z < half[0]; z++) {
        for (let y = 0; y < half[1]; y++) {
          const row = ((k * n[0] + 2 * z + first[0]) * n[1] + 2 * y + first[1]) * n[2] + first[2];
          for (let x = 0; x < half[2]; x++, i++, j++) {
            places[i] = row + 2 * x;
            contexts[i] = contextOf(e[j]);
          }
        }
      }
    }
  });
  return [places, contexts];
}

/** Add w times every second value along each axis of a padded array to e. */
function addVolume(e, values, at, w, [slices, rows, columns], strides) {
  for (let z = 0, i = 0; z < slices; z++) {
    for (let y = 0; y < rows; y++) {
      let j = at + 2 * (z * strides[0] + y * strides[1]);
      for (let x = 0; x < columns; x++, j += 2) e[i++] += Math.imul(w, values[j]);
    }
  }
}

/** The interleaved states of 14.6. */
class Lanes {
  constructor(r, lanes) {
    this.x = new Uint32Array(r.many("u32", lanes, "states"));
    r.check(this.x.every((x) => x >= 65536), "states", "one is below 2^16");
    r.check(r.left % 2 === 0, "words", "half a word is left over");
    this.words = new Uint16Array(r.rest().slice().buffer);
    [this.r, this.next, this.lane] = [r, 0, 0];
  }

  put(x) {
    if (x < 65536) {
      if (this.next >= this.words.length) this.r.fail("words", "words are missing");
      x = x * 65536 + this.words[this.next++];
    }
    this.x[this.lane] = x;
    if (++this.lane === this.x.length) this.lane = 0;
  }

  flag(count) {
    const x = this.x[this.lane];
    const slot = x & 65535;
    const one = slot < count;
    this.put((one ? Math.imul(count, x >>> 16) + slot : Math.imul(65536 - count, x >>> 16) + slot - count) >>> 0);
    return one ? 1 : 0;
  }

  size(starts, table) {
    const x = this.x[this.lane];
    const slot = x & 4095;
    let s = table;
    while (starts[s + 1] <= slot) s++;
    this.put((Math.imul(starts[s + 1] - starts[s], x >>> 12) + slot - starts[s]) >>> 0);
    return s - table;
  }

  finish() {
    this.r.check(this.next === this.words.length, "words", "words are left over");
    this.r.check(this.x.every((x) => x >= 65536 && x < 131072), "states", "one does not end in 2^16..2^17 - 1");
  }
}

/** Signs in the states that are left and in `signs`. */
function readSigns(r, subbands, states, signs, nonzero) {
  const size = Math.max(0, Math.ceil((nonzero - 16 * states.length) / 8));
  r.check(signs.length === size, "signs", `${signs.length} bytes, not ${size}`);
  const bytes = new Uint8Array(2 * states.length + size);
  states.forEach((x, i) => {
    bytes[2 * i] = x;
    bytes[2 * i + 1] = x >>> 8;
  });
  bytes.set(signs, 2 * states.length);
  let at = 0;
  for (const { q } of subbands) {
    for (let i = 0; i < q.length; i++) {
      if (q[i]) {
        if ((bytes[at >> 3] >> (at & 7)) & 1) q[i] = -q[i];
        at++;
      }
    }
  }
  const rest = bytes[at >> 3] >> (at & 7) || bytes.subarray((at >> 3) + 1).some(Boolean);
  r.check(!rest, "signs", "one after the last is set");
}
