// Section 16: a network corrects decoded volumes.
import { readNetwork } from "./network.js";

/** Read a correction of `volumes` volumes. */
export function readCorrection(r, volumes) {
  const scope = r.scope;
  r.scope = "inloop";
  const n = r.u8("components");
  r.check(n >= 1 && n <= volumes, "components", `${n} of ${volumes}`);
  const m = r.choice("u8", "differences", n);
  const d = r.limited("u8", "neighbours", 0, 124);
  const shifts = [...r.take(n + m, "shifts")];
  r.limit(shifts.every((s) => s <= 40), "shifts", "one is above 40");
  const offsets = r.many("i8", 3 * d, "offsets");
  r.limit(offsets.every((o) => Math.abs(o) <= 2), "offsets", "one is not in -2..2");
  let magnitude;
  const net = readNetwork(r, (head) => {
    r.check(head.inputs === 1 && head.columns === n + m * d, "inputs", `${head.columns}, not ${n + m * d}`);
    r.check(head.outputs <= volumes, "outputs", `${head.outputs} of ${volumes}`);
    r.limit(head.parameters <= 2 ** 14, "network", `${head.parameters} parameters`);
    magnitude = head.magnitude;
    return new Array(head.columns).fill(magnitude);
  });
  r.scope = scope;
  const near = Array.from({ length: d }, (_, j) => offsets.slice(3 * j, 3 * j + 3));
  return { net, n, m, near, shifts, magnitude, outputs: net.offsets.length };
}

/** The corrected volumes, of `lengths` slices, rows and columns; those that stay are the same arrays. */
export function correct({ net, n, m, near, shifts, magnitude, outputs }, volumes, lengths) {
  const { block } = net;
  const [, rows, columns] = lengths;
  const out = volumes.map((u, c) => (c < outputs ? u.slice() : u));
  const size = volumes[0].length;
  const clamp = (x) => Math.min(Math.max(x, -magnitude), magnitude);
  const half = shifts.map((s) => (s ? 2 ** (s - 1) : 0));
  const scale = shifts.map((s) => 2 ** -s);
  const places = near.map(() => new Int32Array(block));
  for (let at = 0; at < size; at += block) {
    const filled = Math.min(block, size - at);
    near.forEach(([dz, dy, dx], j) => {
      let x = at % columns;
      let y = Math.floor(at / columns) % rows;
      let z = Math.floor(at / columns / rows);
      const inside = (p, length) => Math.min(Math.max(p, 0), length - 1);
      let row = (inside(z + dz, lengths[0]) * rows + inside(y + dy, rows)) * columns;
      for (let p = 0; p < filled; p++) {
        places[j][p] = row + inside(x + dx, columns);
        if (++x === columns) {
          x = 0;
          if (++y === rows) [y, z] = [0, z + 1];
          row = (inside(z + dz, lengths[0]) * rows + inside(y + dy, rows)) * columns;
        }
      }
    });
    for (let k = 0; k < n; k++) {
      const u = volumes[k];
      const [h, s] = [half[k], scale[k]];
      for (let p = 0; p < filled; p++) net.x[k * block + p] = clamp(Math.floor((u[at + p] + h) * s));
    }
    for (let k = 0, i = n; k < m; k++) {
      const u = volumes[k];
      const [h, s] = [half[n + k], scale[n + k]];
      for (const place of places) {
        for (let p = 0; p < filled; p++) {
          net.x[i * block + p] = clamp(Math.floor((u[place[p]] - u[at + p] + h) * s));
        }
        i++;
      }
    }
    const w = net.evaluate(filled);
    for (let c = 0; c < outputs; c++) for (let p = 0; p < filled; p++) out[c][at + p] += w[c * block + p];
  }
  return out;
}
