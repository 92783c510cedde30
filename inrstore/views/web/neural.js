// Section 13: mode 6, a network that predicts each value from those before it. Nothing is lost.
import { Reader, isNamed, plain, product } from "./bytes.js";
import { contextOf } from "./coefficients.js";
import { BLOCK, multiply } from "./network.js";
import { checkType, fourAxes } from "./predictor.js";
import { decodeGroups, geometric } from "./rans.js";
import { Residuals, Tables } from "./residual.js";
import { PATTERNS, unorder } from "./types.js";

// 13.4: [dz, dy, dx] of the near differences, and of the errors
const NINE = [-1, 0, 1].flatMap((dy) => [-1, 0, 1].map((dx) => [-1, dy, dx]));
const MEAN = [[0, -1, -1], [0, -1, 0], [0, -1, 1], [0, 0, -1]]; // prettier-ignore
const ERRORS = [...NINE, [0, -2, -1], [0, -2, 0], [0, -2, 1], [0, -1, -2], [0, -1, -1], [0, -1, 0], [0, -1, 1],
                [0, 0, -3], [0, 0, -2], [0, 0, -1]]; // prettier-ignore

export function neural(r, type, box, shared) {
  checkType(r, type);
  const axes = fourAxes(box);
  const base = r.u32("base");
  const step = r.positive("u32", "step");
  const high = r.u16("high");
  r.check(base + high * step < 2 ** (8 * type.size), "high", "values leave the type");
  const gain = r.positive("u16", "gain");
  const place = r.choice("u8", "place", 1);
  let bytes;
  if (place === 0) bytes = r.prefixed("network");
  else {
    const digest = r.take(32, "digest");
    bytes = shared.find((b) => isNamed(b, digest));
    r.check(bytes, "digest", "no shared parameter has this SHA-256");
  }
  const net = readNet(new Reader(plain(bytes), "neural"));
  const order = stepsOf(r, net.radii, axes);
  const offset = r.choice("u16", "offset", (net.local ? 0 : high));
  const near = r.matrix(14, 1, "near_weights");
  r.check(near.every((w) => w >= 0), "near_weights", "one is negative");
  const errors = r.matrix(19, 1, "error_weights");
  r.check(errors.every((w) => w >= 0), "error_weights", "one is negative");
  const sum = [...near.subarray(0, 13), ...errors].reduce((a, b) => a + b);
  r.limit(4095 * sum + near[13] < 2 ** 24, "error_weights", "they are too large");
  const tables = new Tables(r);
  const streams = new Residuals(r, product(axes), 0, high, false);
  const v = decodeValues({ axes, order, net, gain, offset, high, near, errors, tables, streams });
  streams.finish();
  const out = new PATTERNS[type.size](v.length);
  for (let i = 0; i < v.length; i++) out[i] = base + step * v[i];
  return unorder(type, out);
}

/** 13.2. */
function readNet(r) {
  const slices = r.limited("u8", "slices", 1, 6);
  const radii = [...r.take(slices, "radii")];
  r.limit(radii[0] >= 1 && radii.every((x) => x <= 6), "radii", `${radii}`);
  const inputs = r.choice("u8", "inputs", 1);
  const leak = r.limited("u8", "leak", 0, 15);
  const clip = r.limited("u16", "clip", 1, 16383);
  const depth = r.limited("u8", "layers", 0, 8);
  const near = [];
  for (let back = slices - 1; back >= 0; back--) {
    for (let dy = -radii[back]; dy <= radii[back]; dy++) {
      for (let dx = -radii[back]; dx <= radii[back]; dx++) {
        if (back || dy < 0 || (!dy && dx < 0)) near.push([-back, dy, dx]);
      }
    }
  }
  const widths = r.many("u16", depth, "widths");
  r.limit(widths.every((w) => w >= 1 && w <= 1024), "widths", "one is not in 1..1024");
  const sizes = [near.length, ...widths, 1];
  const counts = sizes.slice(1).map((rows, l) => rows * sizes[l]);
  const total = counts.reduce((a, b) => a + b);
  r.limit(total <= Math.min(2 ** 22, 64 * r.bytes.length), "widths", `${total} weights`);
  const shifts = [...r.take(depth + 1, "shifts")];
  r.limit(shifts.every((s) => s <= 24), "shifts", "one is above 24");
  const groups = counts.map((count) => {
    const [slope, bend, peak] = [r.u32("tables"), r.u32("tables"), r.u16("tables")];
    r.limit(peak <= 1023, "tables", `a peak of ${peak}`);
    return { count, peak, slope, bend };
  });
  const biases = sizes.slice(1).map((rows) => r.many("i32", rows, "biases"));
  groups.forEach((g) => (g.table = geometric(g.slope, g.bend, g.peak)));
  const weights = decodeGroups(r.rest(), groups);
  const layers = weights.map((w, l) => {
    const [rows, columns] = [sizes[l + 1], sizes[l]];
    for (let j = 0; j < rows; j++) {
      let sum = 0;
      for (let i = 0; i < columns; i++) sum += Math.abs(w[j * columns + i]);
      sum = sum * (l ? 1023 : clip) + Math.abs(biases[l][j]);
      r.limit(sum < 2 ** 24, "weights", `a row of layer ${l + 1} sums up to ${sum}`);
    }
    const even = new Float64Array((rows + (rows % 2)) * columns);
    even.set(w);
    const y = new Float64Array((rows + (rows % 2)) * BLOCK);
    return { matrix: even, rows, columns, bias: biases[l], scale: 2 ** -shifts[l], y };
  });
  return { radii, local: inputs === 1, leak, clip, near, layers, x: new Float64Array(near.length * BLOCK) };
}

/** 13.4: the factors of rows and slices in the number of a step, and the lengths with zeros around. */
function stepsOf(r, radii, [T, Z, Y, X]) {
  const a = radii[0] + 1;
  const b = 1 + Math.max(1 + a, ...radii.slice(1).map((radius, i) => Math.floor((radius * (1 + a)) / (i + 1))));
  const last = X - 1 + a * (Y - 1) + b * (Z - 1);
  const most = 8192 + Math.floor((T * Z * Y * X) / 64);
  r.limit(last + 1 <= most, "steps", `${last + 1}, at most ${most}`);
  const R = Math.max(3, ...radii);
  const front = Math.max(1, radii.length - 1);
  const room = [Z + front, Y + 2 * R, X + 2 * R];
  r.limit(T * product(room) <= 2 ** 28, "radii", `room for ${T * product(room)} values`);
  return { a, b, last, R, front, room };
}

function decodeValues({ axes: [T, Z, Y, X], order, net, gain, offset, high, near, errors, tables, streams }) {
  const { a, b, last, R, front, room } = order;
  const size = product(room);
  const v = new Uint16Array(T * size);
  const E = new Uint16Array(T * size);
  const deltas = (list) => Int32Array.from(list, ([dz, dy, dx]) => (dz * room[1] + dy) * room[2] + dx);
  const [network, nine, mean, wrong] = [net.near, NINE, MEAN, ERRORS].map(deltas);
  const [places, centres, means] = [0, 0, 0].map(() => new Int32Array(BLOCK));
  let filled = 0;
  const flush = () => {
    for (let p = 0; p < filled; p++) {
      const i = places[p];
      means[p] = (v[i + mean[0]] + v[i + mean[1]] + v[i + mean[2]] + v[i + mean[3]]) >> 2;
      centres[p] = net.local ? means[p] : offset;
    }
    const o = evaluate(net, v, places, centres, network, gain, filled);
    for (let p = 0; p < filled; p++) {
      const i = places[p];
      const predicted = Math.min(Math.max(256 * centres[p] + Math.floor((256 * o[p]) / gain), 0), 256 * high);
      let e = near[13];
      for (let j = 0; j < 9; j++) e += near[j] * Math.min(Math.abs(v[i + nine[j]] - means[p]), 4095);
      for (let j = 0; j < 4; j++) e += near[9 + j] * Math.min(Math.abs(v[i + mean[j]] - means[p]), 4095);
      for (let j = 0; j < 19; j++) e += errors[j] * E[i + wrong[j]];
      const table = tables.at(contextOf(e), ((predicted + 128) >> 6) & 3);
      v[i] = streams.value(table, (predicted + 128) >> 8);
      E[i] = Math.min(Math.abs(256 * v[i] - predicted) >> 6, 4095);
    }
    filled = 0;
  };
  for (let s = 0; s <= last; s++) {
    for (let t = 0; t < T; t++) {
      for (let z = 0; z < Z && b * z <= s; z++) {
        const left = s - b * z;
        for (let y = Math.max(0, Math.ceil((left - X + 1) / a)); y < Y && a * y <= left; y++) {
          places[filled++] = t * size + ((z + front) * room[1] + y + R) * room[2] + left - a * y + R;
          if (filled === BLOCK) flush();
        }
      }
    }
    flush();
  }
  const out = new Uint16Array(T * Z * Y * X);
  for (let row = 0, at = 0; at < out.length; row++, at += X) {
    const [t, z, y] = [Math.floor(row / (Z * Y)), Math.floor(row / Y) % Z, row % Y];
    const from = t * size + ((z + front) * room[1] + y + R) * room[2] + R;
    out.set(v.subarray(from, from + X), at);
  }
  return out;
}

/** 13.3, up to o. */
function evaluate(net, v, places, centres, network, gain, filled) {
  let { x } = net;
  const { clip, layers, leak } = net;
  for (let i = 0; i < network.length; i++) {
    for (let p = 0; p < filled; p++) {
      const scaled = Math.floor(((v[places[p] + network[i]] - centres[p]) * gain) / 256);
      x[i * BLOCK + p] = Math.min(Math.max(scaled, -clip), clip);
    }
  }
  layers.forEach(({ matrix, rows, columns, bias, scale, y }, l) => {
    multiply(matrix, x, y, rows, columns, filled, BLOCK);
    for (let h = 0; h < rows; h++) {
      for (let i = h * BLOCK; i < h * BLOCK + filled; i++) {
        const u = Math.floor((y[i] + bias[h]) * scale);
        y[i] = l === layers.length - 1 ? u : Math.min(Math.max(u, u >> leak, -1023), 1023);
      }
    }
    x = y;
  });
  return x;
}
