// Section 4.1: a bitmap of three axes, decoded from the coarsest grid to the finest.
import { product } from "./bytes.js";
import { Stream } from "./rans.js";

const PARITIES = [
  [1, 1, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0],
]; // prettier-ignore

/** The bitmap of axes of these lengths, a byte for each bit. `r` holds it and nothing else. */
export function readMask(r, lengths) {
  const axes = lengths.length > 3 ? [product(lengths.slice(0, -2)), ...lengths.slice(-2)] : lengths;
  const n = [...[1, 1, 1].slice(axes.length), ...axes];
  const total = product(n);
  const lanes = r.u16("lanes");
  r.limit(lanes >= Math.max(1, Math.ceil(total / 2 ** 15)), "lanes", `${lanes} are too few for ${total} bits`);
  const counts = r.many("u16", 19, "counts");
  r.check(counts.every((f) => f <= 16384), "counts", "one is above 16384");
  const stream = new Stream(r.rest(), lanes, "envelope.mask.states", "envelope.mask.words", "envelope.mask.words");
  const bits = new Uint8Array(total);
  pass(stream, counts, bits, [0], new Uint8Array(1));
  let s = 1;
  while (2 * s < Math.max(...n)) s *= 2;
  for (; s >= 1; s /= 2) {
    for (let p = 0; p < 7; p++) {
      const [places, contexts] = contextsOf(bits, n, s, p);
      pass(stream, counts, bits, places, contexts);
    }
  }
  stream.finish();
  return bits;
}

/** Places of a pass and the context of each. */
function contextsOf(bits, n, s, p) {
  const first = PARITIES[p].map((digit) => digit * s);
  const size = product(n.map((length, a) => Math.max(0, Math.ceil((length - first[a]) / (2 * s)))));
  const [places, contexts] = [new Int32Array(size), new Uint8Array(size)];
  const known = [];
  let sum = 0;
  for (let o = 0; o < 27; o++) {
    const offset = [Math.floor(o / 9) - 1, (Math.floor(o / 3) % 3) - 1, (o % 3) - 1];
    const parity = offset.map((d, a) => (d + PARITIES[p][a]) & 1);
    const at = PARITIES.findIndex((q) => q.every((digit, a) => digit === parity[a]));
    if (o === 13 || at >= p) continue; // -1, parity 000, is of coarser grids
    const weight = 8 >> offset.filter(Boolean).length;
    sum += weight;
    known.push([...offset.map((d) => d * s), weight]);
  }
  let i = 0;
  if (size) {
    for (let z = first[0]; z < n[0]; z += 2 * s) {
      for (let y = first[1]; y < n[1]; y += 2 * s) {
        // The rows of the neighbours that are there; only columns are left to look at.
        const near = known.filter(([dz, dy]) => z + dz >= 0 && z + dz < n[0] && y + dy >= 0 && y + dy < n[1]);
        const rows = near.map(([dz, dy]) => ((z + dz) * n[1] + y + dy) * n[2]);
        for (let x = first[2]; x < n[2]; x += 2 * s) {
          let v = 0;
          for (let k = 0; k < near.length; k++) {
            const column = x + near[k][2];
            if (column >= 0 && column < n[2] && bits[rows[k] + column]) v += near[k][3];
          }
          places[i] = (z * n[1] + y) * n[2] + x;
          contexts[i++] = Math.floor((16 * v) / sum);
        }
      }
    }
  }
  return [places, contexts];
}

/** Three runs: which groups of quiet bits are mixed, for either kind, then the bits that are left. */
function pass(stream, counts, bits, places, contexts) {
  const mixed = [];
  for (const [context, table] of [[0, 17], [16, 18]]) {
    let size = 0;
    for (let i = 0; i < contexts.length; i++) if (contexts[i] === context) size++;
    stream.lane = 0;
    mixed[context] = Uint8Array.from({ length: Math.ceil(size / 64) }, () => stream.flag(counts[table]));
  }
  const seen = { 0: 0, 16: 0 };
  stream.lane = 0;
  for (let i = 0; i < contexts.length; i++) {
    const c = contexts[i];
    if (c !== 0 && c !== 16) bits[places[i]] = stream.flag(counts[c]);
    else bits[places[i]] = mixed[c][seen[c]++ >> 6] ? stream.flag(counts[c]) : c >> 4;
  }
}
