// Section 14: mode 4, wavelet coefficients of components.
import { Bits, ChunkError, Reader, isNamed, plain, product } from "./bytes.js";
import { correct, readCorrection } from "./inloop.js";
import { decodeSubbands } from "./coefficients.js";
import { checkOutputs, scaled } from "./types.js";

/** 14.4: what a row of weights is the difference to. */
// prettier-ignore
const USUAL_WEIGHTS = [
  0, 0, 0, 0, 0, 0, 0, 0, 51017,
  0, 136, 42, 0, 0, 0, 0, 0, 580,
  0, 72, 33, 0, 0, 0, 0, 0, 34,
  0, 26, 18, 0, 0, 0, 0, 0, 530,
  0, 0, 0, 0, 3, 5, 13, 7, 17,
  63, 54, 26, 0, 1, 1, 6, 2, 1,
  34, 50, 10, 0, 0, 0, 5, 1, 1,
  27, 37, 4, 0, 0, 0, 1, 0, 1,
  0, 0, 0, 0, 2, 0, 16, 2, 1,
  53, 22, 21, 0, 0, 0, 9, 0, 1,
  35, 45, 6, 0, 0, 0, 7, 0, 1,
  32, 33, 3, 0, 0, 0, 3, 0, 1,
  0, 0, 0, 0, 0, 0, 8, 1, 1,
  40, 0, 15, 0, 0, 0, 6, 0, 1,
  32, 0, 5, 0, 0, 0, 5, 0, 1,
  28, 0, 1, 0, 0, 0, 4, 0, 1,
];

const GAINS = [36, 41, 48, 55, 63, 72, 83, 96, 110, 126, 145, 167, 192, 221, 254, 292, 336, 386, 444, 510, 586, 674, 775,
               891, 1024, 1177, 1353, 1556]; // prettier-ignore

export function transform(r, type, box, shared) {
  if (type.kind === "b") throw new ChunkError("mode", "transform cannot code bool");
  const flags = r.u8("flags");
  r.check([0, 1, 2, 4, 5].includes(flags), "flags", `${flags} is not known`);
  const head = flags === 2 ? readShared(r, type, box, shared) : readHead(r, type, box, flags);
  const { subbands, components } = head;
  const active = r.matrix(subbands.length, 1, "active");
  r.check(active.every((n) => n >= 0 && n <= components), "active", `one is not in 0..${components}`);
  subbands.forEach((band, i) => (band.active = active[i]));
  const coefficients = subbands.reduce((sum, band) => sum + band.active * band.size, 0);
  const lanes = r.limited("u16", "lanes", Math.max(1, Math.ceil(coefficients / 2 ** 15)), 4096);
  const bits = new Bits(r.prefixed("bits"), () => r.fail("bits", "bits are missing"));
  const signs = r.prefixed("signs");
  decodeSubbands(r, head, lanes, bits, signs);

  let volumes = Array.from({ length: components }, (_, k) => synthesize(r, head, k));
  const largest = volumes.map(magnitude);
  checkExact(r, head, largest);
  if (head.correction) {
    volumes = correct(head.correction, volumes, head.lengths);
    checkExact(r, head, volumes.map(magnitude));
  }
  return scaled(type, outputs(head, volumes, box), head.exponent);
}

function magnitude(volume) {
  let most = 0;
  for (let i = 0; i < volume.length; i++) most = Math.max(most, Math.abs(volume[i]));
  return most;
}

/** 14.9: common fields that the configuration brings. */
function readShared(r, type, box, shared) {
  const name = r.take(8, "digest");
  const found = shared.filter((bytes) => isNamed(bytes, name));
  r.check(found.length === 1, "digest", `${found.length} shared parameters have this name`);
  const s = new Reader(plain(found[0]), "transform");
  s.check(s.u8("kind") === 84, "kind", "the shared parameter is no header");
  const count = s.u16("measurements");
  const flags = s.u8("flags");
  s.check([0, 1, 4, 5].includes(flags), "flags", `${flags} is not known`);
  const head = readHead(s, type, box, flags);
  s.check(s.left === 0 && count === head.count, "digest", "the shared header is of another image");
  return head;
}

/** 14.1: the common fields. */
function readHead(r, type, box, flags) {
  const channel = r.u8("channel_axis");
  r.check(channel === 255 || channel < box.length, "channel_axis", `${channel} is no axis`);
  const count = channel === 255 ? 1 : box[channel];
  r.limit(count <= 4096 && product(box) <= 2 ** 26, "channel_axis", `a box of ${box}`);
  const space = box.filter((_, axis) => axis !== channel);
  const folded = space.length > 3 ? [product(space.slice(0, -2)), ...space.slice(-2)] : space;
  const lengths = [...[1, 1, 1].slice(folded.length), ...folded];
  const levels = r.many("u8", 3, "levels");
  // ceil(n / 2^(l - 1)) is what the last halving finds
  r.limit(levels.every((l, a) => l <= 8 && (!l || lengths[a] > 2 ** (l - 1))), "levels", `${levels} of ${lengths}`);
  const components = r.u16("components");
  const most = Math.min(count, 1024, product(lengths));
  r.limit(components >= 1 && components <= most, "components", `${components} is not in 1..${most}`);
  const biases = r.many("i8", 2, "bias");
  const shift = r.limited("u8", "shift", 1, 45);
  const offsetShift = r.limited("u8", "offset_shift", 0, 45);
  const exponent = r.i8("exponent");
  const [low, high] = [r.i32("low"), r.i32("high")];
  checkOutputs(r, type, exponent, low, high);
  const gains = r.matrix(count, 2, "gains");
  r.limit(gains.every((g, i) => i % 2 || (g >= 1 && g <= 65535)), "gains", "one is not in 1..65535");
  let basis = [1];
  if (count > 1) {
    const shifts = [...r.take(components, "column_shifts")];
    r.limit(shifts.every((h) => h <= 15), "column_shifts", "one is above 15");
    basis = r.matrix(count, components, "basis").map((x, i) => x * 2 ** shifts[i % components]);
  }
  const rows = 4 * (1 + levels.filter(Boolean).length);
  const weights = r.matrix(rows, 9, "weights").map((w, i) => w + USUAL_WEIGHTS[i]);
  r.check(weights.every((w) => w >= 0), "weights", "one is negative");
  for (let i = 0; i < rows; i++) {
    const w = weights.subarray(9 * i);
    const sum = 6 * w[0] + 6 * w[1] + 12 * w[2] + 8 * w[3] + w[4] + 6 * w[5] + 7 * w[6] + 42 * w[7];
    r.limit(4080 * sum + w[8] < 2 ** 24, "weights", `row ${i} is too large`);
  }
  const correction = flags & 1 ? readCorrection(r, components) : null;
  const subbands = listSubbands(lengths, levels);
  return { channel, count, lengths, levels, components, biases, shift, offsetShift, exponent, low, high, gains, basis,
           weights, correction, subbands, trellis: flags >= 4 }; // prettier-ignore
}

/** m[j][a]: lengths of the axes before level j is halved. */
function lengthsOf(lengths, levels) {
  const m = [lengths];
  for (let j = 0; j < Math.max(...levels); j++) m.push(m[j].map((n, a) => (j < levels[a] ? Math.ceil(n / 2) : n)));
  return m;
}

/** 14.2. */
function listSubbands(lengths, levels) {
  const m = lengthsOf(lengths, levels);
  const top = m.length - 1;
  const bands = [{ level: Math.max(top - 1, 0), key: [0, 0, 0], n: m[top] }];
  for (let level = top - 1; level >= 0; level--) {
    for (let code = 1; code < 8; code++) {
      const key = [code >> 2, (code >> 1) & 1, code & 1];
      if (!key.every((digit, a) => !digit || level < levels[a])) continue;
      const n = m[level].map((length, a) => {
        if (level >= levels[a]) return length;
        return key[a] ? Math.floor(length / 2) : Math.ceil(length / 2);
      });
      bands.push({ level, key, n });
    }
  }
  bands.forEach((band) => (band.size = product(band.n)));
  return bands;
}

/** 14.7: component k, from its coefficients in all subbands. */
function synthesize(r, { lengths, levels, subbands, biases, trellis }, k) {
  const m = lengthsOf(lengths, levels);
  const dequantized = (band) => {
    const out = new Float64Array(band.size);
    if (k >= band.active) return out;
    const a = band.key.reduce((sum, digit, axis) => {
      const l = levels[axis];
      return sum + (l <= band.level ? -l : digit ? 1 - band.level : -(band.level + 1));
    }, 0);
    const gain = GAINS[24 + a];
    const unit = trellis ? 64 : 128;
    for (let i = 0, from = k * band.size; i < band.size; i++) {
      const q = band.q[from + i];
      if (!q) continue;
      const size = Math.abs(q);
      const value = Math.floor(((unit * size + biases[size === 1 ? 0 : 1]) * gain + 64) / 128);
      out[i] = q < 0 ? -value : value;
    }
    return out;
  };
  let low = dequantized(subbands[0]);
  let n = subbands[0].n;
  for (let level = m.length - 2; level >= 0; level--) {
    const size = m[level];
    const halved = size.map((_, a) => level < levels[a]);
    const out = new Float64Array(product(size));
    const join = (v, lengthsOfV, key) => {
      const step = halved.map((h) => (h ? 2 : 1));
      for (let z = 0, i = 0; z < lengthsOfV[0]; z++) {
        for (let y = 0; y < lengthsOfV[1]; y++) {
          let at = ((z * step[0] + key[0]) * size[1] + y * step[1] + key[1]) * size[2] + key[2];
          for (let x = 0; x < lengthsOfV[2]; x++, at += step[2]) out[at] = v[i++];
        }
      }
    };
    join(low, n, [0, 0, 0]);
    for (const band of subbands.slice(1)) {
      if (band.level === level && k < band.active) join(dequantized(band), band.n, band.key);
    }
    for (let a = 2; a >= 0; a--) if (halved[a]) lift(r, out, size[a], product(size.slice(a + 1)));
    [low, n] = [out, size];
  }
  return low;
}

/** The four steps along an axis of this length whose places are `inner` apart. */
function lift(r, v, length, inner) {
  const block = length * inner;
  let most = 0;
  for (let start = 0; start < v.length; start += block) {
    for (const [first, weight] of [[0, 7266], [1, 14466], [0, -868], [1, -25987]]) { // prettier-ignore
      for (let i = first; i < length; i += 2) {
        const at = start + i * inner;
        const before = (i > 0 ? -inner : inner);
        const after = i + 1 < length ? inner : -inner;
        for (let j = at; j < at + inner; j++) {
          v[j] -= Math.floor((weight * (v[j + before] + v[j + after]) + 8192) / 16384);
        }
      }
    }
    for (let j = start; j < start + block; j++) most = Math.max(most, Math.abs(v[j]));
  }
  r.limit(most < 2 ** 35, "coefficients", "a sum of the wavelet is beyond 2^35");
}

/** 14.8: the limit of outputs. Sums that pass it are rounded, but stay beyond it. */
function checkExact(r, { count, components, basis, gains, shift, offsetShift }, largest) {
  for (let t = 0; t < count; t++) {
    let sum = 0;
    for (let k = 0; k < components; k++) sum += Math.abs(basis[t * components + k]) * largest[k];
    const most = gains[2 * t] * sum + Math.abs(gains[2 * t + 1]) * 2 ** offsetShift + 2 ** (shift - 1);
    r.limit(most < 2 ** 53, "outputs", `a sum of measurement ${t} is up to ${most}`);
  }
}

/** 14.8: the steps of all values of the box. */
function outputs({ channel, count, components, basis, gains, shift, offsetShift, low, high }, volumes, box) {
  const numbers = new Int32Array(product(box));
  const inner = channel === 255 ? 1 : product(box.slice(channel + 1));
  const size = volumes[0].length;
  const width = Math.min(channel === 255 ? size : inner, 4096);
  const sums = new Float64Array(width);
  for (let start = 0; start < size; start += channel === 255 ? size : inner) {
    const end = start + (channel === 255 ? size : inner);
    for (let at = start; at < end; at += width) {
      const filled = Math.min(width, end - at);
      for (let t = 0; t < count; t++) {
        sums.fill(0);
        for (let k = 0; k < components; k++) {
          const [b, u] = [basis[t * components + k], volumes[k]];
          if (b) for (let i = 0; i < filled; i++) sums[i] += b * u[at + i];
        }
        const [gain, add] = [gains[2 * t], gains[2 * t + 1] * 2 ** offsetShift + 2 ** (shift - 1)];
        const to = start * count + t * (end - start) + at - start;
        const scale = 2 ** -shift;
        for (let i = 0; i < filled; i++) {
          numbers[to + i] = Math.min(Math.max(Math.floor((sums[i] * gain + add) * scale), low), high);
        }
      }
    }
  }
  return numbers;
}
