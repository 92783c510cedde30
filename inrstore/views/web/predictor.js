// Section 12: mode 5, integer predictors. Nothing is lost.
import { product } from "./bytes.js";
import { contextOf } from "./coefficients.js";
import { Residuals, Tables } from "./residual.js";
import { PATTERNS, unorder } from "./types.js";

const ROOM = 3 * 2 ** 19;
// 12.6: neighbours in the own plane, [dy, first dx, last dx]
const VALUES = spans([[0, -4, -1], [-1, -4, 1], [-2, -3, 2], [-3, -2, 2]]); // prettier-ignore
const ERRORS = spans([[0, -3, -1], [-1, -2, 1], [-2, -1, 1]]); // prettier-ignore
const NINE = spans([[-1, -1, 1], [0, -1, 1], [1, -1, 1]]); // prettier-ignore
// Where D of a value's list comes from, [dy, dx, 0 its own plane, 1 that below, 2 that above]
const NEAR = [VALUES, NINE, NINE].flatMap((list, plane) => list.map(([dy, dx]) => [dy, dx, plane]));

function spans(rows) {
  return rows.flatMap(([dy, from, to]) => Array.from({ length: to - from + 1 }, (_, i) => [dy, from + i]));
}

/** The box as four axes, the last of which are kept; more are multiplied into the first. */
export function fourAxes(box) {
  const axes = box.length > 4 ? [product(box.slice(0, -3)), ...box.slice(-3)] : box;
  return [...[1, 1, 1, 1].slice(axes.length), ...axes];
}

export function checkType(r, type) {
  r.check(type.size < 8 && type.kind !== "b", "dtype", `it cannot code ${type.name}`);
}

export function predictor(r, type, box) {
  checkType(r, type);
  const p = readHeader(r, type, fourAxes(box));
  readGroups(r, p);
  const tables = new Tables(r);
  const streams = new Residuals(r, p.total, p.low, p.high, p.zeros);
  const v = decodeGroups(p, tables, streams);
  streams.finish();
  return unorder(type, arrange(p, v, new PATTERNS[type.size](product(box))));
}

/** 12.1 and 12.2. */
function readHeader(r, type, [T, Z, rows, columns]) {
  const flags = r.u8("flags");
  const zeros = (flags & 2) !== 0;
  const regions = (flags & 4) !== 0;
  r.check(flags < 8 && (T === 1 || flags < 2), "flags", `${flags} for ${T} measurements`);
  const exchanged = (flags & 1) !== 0;
  const [Y, X] = exchanged ? [columns, rows] : [rows, columns];
  const base = r.u32("base");
  const step = r.positive("u32", "step");
  const low = r.i32("low");
  const high = r.i32("high");
  const inside = low >= -65535 && low <= 0 && high >= 0 && high <= low + 65535;
  r.limit(inside, "high", `${high} with a low of ${low}`);
  r.check(base + low * step >= 0 && base + high * step < 2 ** (8 * type.size), "base", "values leave the type");
  const top = r.u8("top");
  r.check([1, 2, 4, 8].includes(top), "top", `${top} is not 1, 2, 4 or 8`);
  const a = r.u16("row_parts");
  const h = Math.ceil(Y / a);
  r.check(a >= 1 && (a - 1) * h < Y, "row_parts", `${a} for ${Y} rows`);
  const b = r.u16("column_parts");
  const l = Math.ceil(X / b);
  r.check(b >= 1 && (b - 1) * l < X, "column_parts", `${b} for ${X} columns`);
  r.limit((h + 8) * (l + 8) <= ROOM, "column_parts", `parts of ${h} x ${l}`);
  let [hr, lr] = [h, l];
  if (regions) {
    hr = r.u16("region_rows");
    r.limit(hr >= Math.min(h, 16) && hr <= h, "region_rows", `${hr} of ${h}`);
    lr = r.u16("region_columns");
    r.limit(lr >= Math.min(l, 16) && lr <= l, "region_columns", `${lr} of ${l}`);
  }
  r.limit(T <= 4096, "order", `${T} measurements`);
  const order = T > 1 ? r.many("u16", T, "order") : [0];
  r.check(new Set(order).size === T && order.every((i) => i < T), "order", "it is no permutation");

  const parts = a * b;
  const slices = [{ d: 0, slices: range(0, Z, top) }];
  for (let d = top / 2; d >= 1; d /= 2) {
    const list = range(d, Z, 2 * d);
    if (list.length) slices.push({ d, slices: list });
  }
  const groups = [];
  for (let k = 0; k < T; ) {
    const size = Math.min([1, 1, 2, 4, 8][groups.length] ?? 16, T - k);
    const stages = slices.map((stage) => ({ ...stage, planes: size * stage.slices.length * parts }));
    groups.push({ first: k, size, stages });
    k += size;
  }
  const block = Math.max(1, Math.floor(ROOM / ((h + 8) * (l + 8))));
  const total = T * Z * parts * h * l;
  const steps = l + 2 * (h - 1);
  const blocks = groups.flatMap((g) => g.stages).reduce((sum, s) => sum + Math.ceil(s.planes / block), 0);
  r.limit(blocks * steps <= 8192 + Math.floor(total / 64), "steps", `${blocks * steps} for ${total} values`);
  return { Z, Y, X, T, exchanged, zeros, regions, base, step, low, high, b, h, l, hr, lr, order, parts, groups, block, total,
           steps }; // prettier-ignore
}

function range(from, to, by) {
  return Array.from({ length: Math.max(0, Math.ceil((to - from) / by)) }, (_, i) => from + i * by);
}

/** Refuse a row of a matrix whose products could sum up to `limit`. */
function checkRow(r, row, most, limit, field) {
  const sum = row.reduce((s, w, i) => s + Math.abs(w) * (i < row.length - 1 ? most : 1), 0);
  r.limit(sum < limit, field, `a row sums up to ${sum}`);
}

/** 12.4 and 12.5. */
function readGroups(r, { groups, zeros, regions, h, l, hr, lr }) {
  const R = Math.ceil(h / hr) * Math.ceil(l / lr);
  for (const group of groups) {
    const later = group.first > 0;
    if (later) {
      const k = Math.min(group.first, 256);
      group.shift = r.limited("u8", "group_shift", 0, 14);
      group.weights = r.matrix(group.size, k + 1, "group_weights");
      for (let i = 0; i < group.size; i++) {
        checkRow(r, group.weights.subarray(i * (k + 1), (i + 1) * (k + 1)), 65535, 2 ** 53, "group_weights");
      }
    }
    for (const stage of group.stages) {
      const J = stage.d ? 39 : 21;
      const K = later ? J + 9 : J;
      const M = 10 + (stage.d ? 2 : 0) + (later ? 1 : 0);
      Object.assign(stage, { J, K, M, R });
      if (zeros) {
        stage.flagWeights = r.matrix(J + 1, 1, "flag_weights");
        r.limit(sumOf(stage.flagWeights) < 2 ** 24, "flag_weights", "they are too large");
      }
      stage.fraction = r.limited("u8", "fraction", 4, 12);
      const n = r.limited("u8", "sets", 1, 16);
      stage.sets = n;
      stage.clip = r.positive("u16", "clip");
      const weights = r.matrix(n, K + 1, "weights");
      const checkWeights = (w, field) => {
        for (let i = 0; i < w.length; i += K + 1) checkRow(r, w.subarray(i, i + K + 1), stage.clip, 2 ** 24, field);
      };
      checkWeights(weights, "weights");
      stage.weights = Int32Array.from(weights);
      const shift = regions ? r.u8("region_shift") : 255;
      stage.regional = shift !== 255;
      if (stage.regional) {
        r.limit(shift <= 12 && 2048 * R <= stage.planes * h * l, "region_shift", `${shift} with ${R} regions`);
        const more = r.matrix(R * n, K + 1, "region_weights");
        r.limit(more.every((v) => Math.abs(v) < 2 ** (25 - shift)), "region_weights", "one is too large");
        const regional = more.map((v, i) => weights[i % weights.length] + 2 ** shift * v);
        checkWeights(regional, "region_weights");
        stage.weights = Int32Array.from(regional);
      }
      const thresholds = r.matrix(n - 1, 1, "thresholds");
      r.check(thresholds.every((t, i) => t >= (i ? 1 : 0)), "thresholds", "they do not ascend");
      r.limit(sumOf(thresholds) < 2 ** 24, "thresholds", "they are too large");
      let sum = 0;
      stage.thresholds = Int32Array.from(thresholds, (t) => (sum += t));
      const activity = r.matrix(K + 1, 1, "activity_weights");
      r.check(activity.every((w) => w >= 0), "activity_weights", "one is negative");
      checkRow(r, activity, stage.clip, 2 ** 24, "activity_weights");
      stage.activity = Int32Array.from(activity);
      stage.scale = r.limited("u16", "activity_scale", 0, 1023);
      const errors = r.matrix(M, 1, "error_weights");
      r.check(errors.every((w) => w >= 0), "error_weights", "one is negative");
      r.limit(4095 * sumOf(errors) < 2 ** 24, "error_weights", "they are too large");
      stage.errorWeights = Int32Array.from(errors);
    }
  }
}

const sumOf = (list) => list.reduce((sum, x) => sum + Math.abs(x), 0);

/** All v, as [measurement in their order][row][column][slice][part]: what is decoded in turn lies together. */
function decodeGroups(p, tables, streams) {
  const { T, Z, h, l, parts, low, high } = p;
  const size = Z * parts * h * l;
  const all = Array.from({ length: T }, () => null);
  const errorSums = T > 1 ? new Int32Array(size) : null;
  for (const group of p.groups) {
    // D, E and F of each measurement, and P where it is not 0 everywhere
    const members = Array.from({ length: group.size }, (_, i) => ({
      D: new Int32Array(size),
      E: new Int16Array(size),
      F: p.zeros ? new Uint8Array(size) : null,
      P: group.first ? base(group, i, all, size, low, high) : null,
    }));
    for (const stage of group.stages) {
      const below = -stage.d * parts;
      const sides = [below, -below].map((above) => {
        const from = [0, below, above];
        const deltas = NEAR.slice(0, stage.J).map(([dy, dx, n]) => from[n] + (dy * l + dx) * Z * parts);
        return { below, above, deltas: Int32Array.from(deltas) };
      });
      const count = stage.slices.length * parts;
      // Planes are listed a block at a time: there may be as many as values.
      for (let next = 0; next < stage.planes; ) {
        const planes = [];
        for (const end = Math.min(next + p.block, stage.planes); next < end; next++) {
          const z = stage.slices[Math.floor((next % count) / parts)];
          const side = sides[z + stage.d < Z ? 1 : 0];
          planes.push({ ...members[Math.floor(next / count)], at: z * parts + (next % parts), ...side });
        }
        decodeBlock(p, group.first, stage, planes, tables, streams, errorSums);
      }
    }
    members.forEach(({ D, E, P }, i) => {
      if (P) for (let j = 0; j < size; j++) D[j] += P[j];
      if (errorSums) for (let j = 0; j < size; j++) errorSums[j] += E[j];
      all[group.first + i] = D;
    });
  }
  return all;
}

/** 12.4: P of measurement i of a group. */
function base({ first, shift, weights }, i, all, size, low, high) {
  const k = Math.min(first, 256);
  const row = weights.subarray(i * (k + 1), (i + 1) * (k + 1));
  const sums = new Float64Array(size).fill(row[k]);
  for (let m = 0; m < k; m++) {
    const [w, v] = [row[m], all[m]];
    if (w) for (let j = 0; j < size; j++) sums[j] += w * v[j];
  }
  return Int32Array.from(sums, (s) => Math.min(Math.max(Math.floor(s / 2 ** shift), low), high));
}

/** What stands around a position near an edge of its plane; 0 outside. */
function careful(out, to, array, i, list, deltas, y, x, h, l) {
  for (let j = 0; j < deltas.length; j++) {
    const row = y + list[j][0];
    const column = x + list[j][1];
    out[to + j] = row >= 0 && row < h && column >= 0 && column < l ? array[i + deltas[j]] : 0;
  }
}

/** The planes of a block (12.2), value by value (12.6). */
function decodeBlock(p, first, stage, planes, tables, streams, errorSums) {
  const { h, l, low, high, steps, hr, lr } = p;
  const { J, K, clip, fraction, weights, activity, thresholds, flagWeights, errorWeights, scale, regional, sets } =
    stage;
  const between = stage.d > 0;
  const bands = Math.ceil(l / lr);
  const width = K + 1;
  const half = 1 << (fraction - 1);
  const r = new Int32Array(width);
  const f = new Uint8Array(J);
  r[K] = 1;
  const stride = p.Z * p.parts;
  const own = Int32Array.from(NINE, ([dy, dx]) => (dy * l + dx) * stride);
  const wrong = Int32Array.from(ERRORS, ([dy, dx]) => (dy * l + dx) * stride);

  for (let s = 0; s < steps; s++) {
    for (let y = Math.max(0, (s - l + 2) >> 1); y < h && 2 * y <= s; y++) {
      const x = s - 2 * y;
      const inside = y >= 3 && x >= 4 && y + 1 < h && x + 2 < l;
      for (let n = 0; n < planes.length; n++) {
        const { D, E, F, P, at, below, above, deltas } = planes[n];
        const i = (y * l + x) * stride + at;
        if (inside) for (let j = 0; j < J; j++) r[j] = D[i + deltas[j]];
        else careful(r, 0, D, i, NEAR, deltas, y, x, h, l);
        let c;
        if (P) {
          careful(r, J, P, i, NINE, own, y, x, h, l);
          c = P[i];
          for (let j = J; j < K; j++) r[j] -= c;
          r[J + 4] = c >> 4;
        } else {
          // (0, -1), (-1, -1), (-1, 0), (-1, 1) stand at 3, 7, 8, 9; the position below and above at 25 and 34
          let count = between ? 6 : 4;
          if (F) {
            careful(f, 0, F, i, NEAR, deltas, y, x, h, l);
            count = f[3] + f[7] + f[8] + f[9] + (between ? f[25] + f[34] : 0);
          }
          const sum = r[3] + r[7] + r[8] + r[9] + (between ? r[25] + r[34] : 0); // D is 0 where F is
          c = count ? Math.floor(sum / count) : 0;
          if (F) {
            let u = flagWeights[J];
            for (let j = 0; j < J; j++) {
              if (f[j]) u += flagWeights[j];
              else r[j] = c; // 0 when c is taken away
            }
            if (!streams.flag(u)) continue;
          }
        }
        let t = activity[K];
        const centre = P ? 0 : c;
        for (let j = 0; j < K; j++) {
          const away = r[j] - centre;
          const value = away > clip ? clip : away < -clip ? -clip : away;
          r[j] = value;
          t = (t + Math.imul(activity[j], Math.abs(value))) | 0;
        }
        let set = regional ? (Math.floor(y / hr) * bands + Math.floor(x / lr)) * sets : 0;
        for (let j = 0; j < thresholds.length; j++) if (thresholds[j] < t) set++;
        let m = c << fraction;
        for (let j = 0, w = set * width; j < width; j++, w++) m = (m + Math.imul(weights[w], r[j])) | 0;

        let e = Math.imul(t < 1048576 ? t : 1048576, scale) >> 6;
        for (let j = 0; j < 10; j++) {
          if (!inside) {
            const row = y + ERRORS[j][0];
            const column = x + ERRORS[j][1];
            if (row < 0 || column < 0 || column >= l) continue;
          }
          e = (e + Math.imul(errorWeights[j], E[i + wrong[j]])) | 0;
        }
        if (between) e += errorWeights[10] * E[i + below] + errorWeights[11] * E[i + above];
        if (P) e += errorWeights[between ? 12 : 10] * Math.floor(errorSums[i] / first);
        const rounded = m + half;
        const prediction = Math.min(Math.max(rounded >> fraction, low), high);
        const v = streams.value(tables.at(contextOf(e), (rounded >> (fraction - 2)) & 3), prediction);
        if (F) {
          if (!v) streams.zero();
          F[i] = 1;
        }
        D[i] = P ? v - P[i] : v;
        E[i] = Math.min(Math.abs((v << fraction) - m) >> (fraction - 2), 4095);
      }
    }
  }
}

/** 12.1, 12.2: from parts to the box, as patterns in numerical order. */
function arrange({ Z, Y, X, exchanged, base: first, step, b, h, l, order, parts }, all, out) {
  all.forEach((v, i) => {
    for (let z = 0; z < Z; z++) {
      for (let y = 0; y < Y; y++) {
        const slice = (order[i] * Z + z) * Y * X;
        for (let x = 0; x < X; x++) {
          const part = z * parts + Math.floor(y / h) * b + Math.floor(x / l);
          const from = ((y % h) * l + (x % l)) * Z * parts + part;
          out[slice + (exchanged ? x * Y + y : y * X + x)] = first + step * v[from];
        }
      }
    }
  });
  return out;
}
