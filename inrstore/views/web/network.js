// Section 7: networks of integers. Positions are evaluated in blocks, each row of an array for one unit.
import { module } from "./kernel.js";
import { decodeGroups, geometric, lanesOf } from "./rans.js";

export const BLOCK = 256;
const table = (f) => Int16Array.from({ length: 4096 }, (_, p) => Math.round(1023 * f(p)));
const SINE = table((p) => Math.sin((2 * Math.PI * (p + 0.5)) / 4096));
const TANH = table((p) => Math.tanh((p - 2048 + 0.5) / 512));
const [SINE_CODE, LAST_CODE] = [1, 3];

const even = (n) => n + (n % 2);

/** A short number: 12 bits of mantissa, 4 of exponent. */
export const short = (g) => (g & 0xfff) * 2 ** (g >> 12);

/**
 * Read a network. `accept(head)` checks, in the mode's name, what its fields say before anything is made of them, and
 * returns the largest magnitude of each input.
 */
export function readNetwork(r, accept) {
  const scope = r.scope;
  r.scope = "network";
  const bytes = r.left;
  const inputs = r.choice("u8", "inputs", 1);
  const columns = inputs ? r.u16("values") : r.u8("axes");
  if (inputs) r.limit(columns >= 1 && columns <= 4096, "values", `${columns} is not in 1..4096`);
  else r.limit(columns <= 8, "axes", `${columns} is above 8`);
  const magnitude = inputs ? r.u16("magnitude") : 0;
  if (inputs) r.limit(magnitude >= 1 && magnitude <= 32767, "magnitude", `${magnitude} is not in 1..32767`);
  const depth = r.limited("u8", "layers", 1, 16);
  const [activations, sizes] = [[], []];
  for (let l = 0; l < depth; l++) {
    activations.push(r.u8("activation"));
    r.check(activations[l] <= LAST_CODE, "activation", `${activations[l]} is reserved`);
    sizes.push(r.u8("width") + 1);
  }
  const outputs = r.u32("outputs");
  const shapes = [...sizes, outputs].map((rows, l) => [rows, l ? sizes[l - 1] : columns]);
  const units = sizes.reduce((a, b) => a + b);
  const parameters = shapes.reduce((sum, [a, b]) => sum + a * b, units);
  const earned = Math.min(2 ** 22, 64 * bytes);
  r.limit(outputs >= 1 && parameters <= earned, "outputs", `${parameters} parameters, at most ${earned}`);
  r.scope = scope;
  const magnitudes = accept({ inputs, columns, magnitude, outputs, parameters });
  r.scope = "network";

  const multipliers = r.many("u32", depth + 1, "multipliers");
  const tables = [];
  for (let l = 0; l < depth + 2; l++) {
    const [slope, bend] = ["slope", "bend"].map((name) => 2 ** 32 - 1 - 32 * short(r.u16(name)));
    const peak = r.limited("u16", "peak", 0, 1023);
    tables.push({ slope, bend, peak });
  }
  const shift = r.limited("u8", "shift", 4, 34);
  const kind = r.choice("u8", "gain_kind", 1);
  const gains = r.many("u16", kind ? outputs : 1, "gains").map(short);
  const size = r.limited("u8", "offset_bytes", 1, 4);
  const raw = r.take(size * outputs, "offsets");
  const offsets = new Float64Array(outputs);
  for (let c = 0; c < outputs; c++) {
    let n = 0;
    for (let i = 0; i < size; i++) n |= raw[c * size + i] << (8 * i);
    offsets[c] = ((n << (32 - 8 * size)) >> (32 - 8 * size)) * 2 ** (shift - 4);
    r.limit(Math.abs(offsets[c]) < 2 ** 52, "offsets", "an offset is too large");
  }
  const stream = r.take(2 * r.u32("words") + 4 * lanesOf(parameters), "words");
  const counts = [...shapes.map(([a, b]) => a * b)];
  counts.splice(depth, 0, units);
  const groups = tables.map((t, i) => ({ count: counts[i], peak: t.peak, table: geometric(t.slope, t.bend, t.peak) }));
  const symbols = decodeGroups(stream, groups);
  const [biases] = symbols.splice(depth, 1);
  const net = new Network({ inputs, shapes, activations, multipliers, gains, offsets, shift, biases, weights: symbols });
  net.checkSums(r, inputs, magnitudes);
  r.scope = scope;
  return net;
}

class Network {
  constructor(fields) {
    Object.assign(this, fields);
    const { shapes } = this;
    const rows = even(Math.max(...shapes.map((shape) => shape[0])));
    const columns = even(Math.max(...shapes.map((shape) => shape[1])));
    // Positions that are evaluated together: few where there are many outputs.
    this.block = Math.min(BLOCK, Math.max(8, 8 * Math.floor(2 ** 19 / rows)));
    this.x = new Float64Array((module ? shapes[0][1] : columns) * this.block);
    if (module) this.#useKernel(rows, columns);
    else this.y = new Float64Array(rows * this.block);
    this.matrices = shapes.map(([n, m], l) => this.#matrix(l, n, m));
  }

  /** One memory holds all matrices of pairs of columns, then the inputs of a layer in pairs, then its sums. */
  #useKernel(rows, columns) {
    const size = this.block * 4;
    this.at = [0];
    for (const [n, m] of this.shapes) this.at.push(this.at.at(-1) + even(n) * even(m) * 2);
    const x = Math.ceil(this.at.at(-1) / 16) * 16;
    const y = x + (columns / 2) * size;
    const memory = new WebAssembly.Memory({ initial: Math.ceil((y + rows * size) / 65536) });
    const { m } = new WebAssembly.Instance(module, { e: { m: memory } }).exports;
    this.pairs = new Int16Array(memory.buffer, x, columns * this.block);
    this.y = new Int32Array(memory.buffer, y, rows * this.block);
    this.sums = new Float64Array(this.inputs ? 0 : even(this.shapes[0][0]) * this.block);
    this.kernel = (l, n, columnPairs, filled) => m(this.at[l], x, y, n, columnPairs, size, Math.ceil(filled / 8) * 32);
    this.memory = memory;
  }

  /** A matrix as its product wants it, with a row of zeros where they are odd: two are summed at a time. */
  #matrix(l, n, m) {
    const doubles = !module || (!l && !this.inputs);
    const width = doubles ? m : even(m);
    const w = doubles ? new Float64Array(even(n) * m) : new Int16Array(this.memory.buffer, this.at[l], even(n) * width);
    for (let h = 0; h < n; h++) w.set(this.weights[l].subarray(h * m, (h + 1) * m), h * width);
    return w;
  }

  /** 7.2. */
  checkSums(r, inputs, magnitudes) {
    const last = this.shapes.length - 1;
    let unit = 0;
    this.shapes.forEach(([rows, columns], l) => {
      for (let h = 0; h < rows; h++) {
        let sum = 0;
        for (let i = 0; i < columns; i++) {
          sum += Math.abs(this.weights[l][h * columns + i]) * (l ? 1023 : magnitudes[i]);
        }
        r.limit((!l && !inputs) || sum < 2 ** 24, "weights", `a row of matrix ${l} sums up to ${sum}`);
        if (l === last) continue;
        const most = sum * this.multipliers[l] + Math.abs(this.biases[unit++]) * this.multipliers[last];
        r.limit(this.activations[l] === SINE_CODE || most < 2 ** 52, "weights", `a sum of layer ${l} is up to ${most}`);
      }
    });
  }

  /** 7.3: from the inputs in `x`, of this many positions, to the outputs K, which stand until the next call. */
  evaluate(filled) {
    const { block, shapes, x, pairs, activations, multipliers } = this;
    const last = shapes.length - 1;
    for (let k = 0; pairs && this.inputs && k < shapes[0][1]; k++) {
      const to = (k >> 1) * 2 * block + (k & 1);
      for (let p = 0; p < filled; p++) pairs[to + 2 * p] = x[k * block + p];
    }
    for (let l = 0, unit = 0; l < last; l++) {
      const [rows] = shapes[l];
      const sums = this.#product(l, filled);
      for (let h = 0; h < rows; h++) {
        const z = [activations[l], multipliers[l], this.biases[unit++], multipliers[last]];
        if (pairs) activate(sums, h * block, filled, ...z, pairs, (h >> 1) * 2 * block + (h & 1), 2);
        else activate(sums, h * block, filled, ...z, x, h * block, 1);
      }
    }
    const sums = this.#product(last, filled);
    const [half, scale] = [2 ** (this.shift - 1), 2 ** -this.shift];
    this.out ??= new Float64Array(this.offsets.length * block);
    for (let c = 0; c < this.offsets.length; c++) {
      const gain = this.gains[this.gains.length > 1 ? c : 0];
      const add = this.offsets[c] + half;
      for (let p = c * block; p < c * block + filled; p++) this.out[p] = Math.floor((sums[p] * gain + add) * scale);
    }
    return this.out;
  }

  #product(l, filled) {
    const [rows, columns] = this.shapes[l];
    if (this.kernel && (l || this.inputs)) {
      this.kernel(l, even(rows), even(columns) / 2, filled);
      return this.y;
    }
    const y = this.kernel ? this.sums : this.y;
    multiply(this.matrices[l], this.x, y, rows, columns, filled, this.block);
    return y;
  }
}

/** Y = W X at the first `filled` positions, in tiles of two rows and four positions. */
export function multiply(w, x, y, rows, columns, filled, block) {
  for (let h = 0; h < rows; h += 2) {
    const [u, v, s] = [h * columns, (h + 1) * columns, h * block];
    for (let p = 0; p < filled; p += 4) {
      let a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0; // prettier-ignore
      for (let k = 0, q = p; k < columns; k++, q += block) {
        const a = w[u + k], b = w[v + k]; // prettier-ignore
        const x0 = x[q], x1 = x[q + 1], x2 = x[q + 2], x3 = x[q + 3]; // prettier-ignore
        a0 += a * x0;
        a1 += a * x1;
        a2 += a * x2;
        a3 += a * x3;
        b0 += b * x0;
        b1 += b * x1;
        b2 += b * x2;
        b3 += b * x3;
      }
      const i = s + p;
      y[i] = a0;
      y[i + 1] = a1;
      y[i + 2] = a2;
      y[i + 3] = a3;
      y[i + block] = b0;
      y[i + block + 1] = b1;
      y[i + block + 2] = b2;
      y[i + block + 3] = b3;
    }
  }
}

/** 7.4: z = s M + b M', and f(z), of the sums of one unit. */
function activate(s, from, filled, kind, multiplier, bias, biasMultiplier, out, to, step) {
  if (kind === SINE_CODE) {
    const b = Math.imul(bias, biasMultiplier);
    for (let i = from; i < from + filled; i++, to += step) out[to] = SINE[(Math.imul(s[i], multiplier) + b) >>> 20];
    return;
  }
  const b = bias * biasMultiplier;
  const tanh = kind === LAST_CODE;
  const [low, high, scale, half] = tanh ? [-2048, 2047, 2 ** -20, 0] : [kind ? 0 : -1023, 1023, 2 ** -24, 2 ** 23];
  for (let i = from; i < from + filled; i++, to += step) {
    const u = Math.min(Math.max(Math.floor((s[i] * multiplier + b + half) * scale), low), high);
    out[to] = tanh ? TANH[u + 2048] : u;
  }
}
