// Section 5: mode 3, a network of the coordinates.
import { ChunkError, product } from "./bytes.js";
import { readNetwork } from "./network.js";
import { checkOutputs, scaled } from "./types.js";

export function siren(r, type, box) {
  if (type.kind === "b") throw new ChunkError("mode", `siren cannot code ${type.name}`);
  const channel = r.u8("channel_axis");
  r.check(channel === 255 || channel < box.length, "channel_axis", `${channel} is no axis`);
  const e = r.i8("exponent");
  const [low, high] = [r.i32("low"), r.i32("high")];
  checkOutputs(r, type, e, low, high);
  const lengths = box.filter((n, axis) => n > 1 && axis !== channel);
  const count = channel === 255 ? 1 : box[channel];
  const net = readNetwork(r, (head) => {
    r.check(head.inputs === 0 && head.columns === lengths.length, "inputs", `${head.columns} are not those of the box`);
    r.check(head.outputs === count, "outputs", `${head.outputs}, not ${count}`);
    return lengths.map((n) => n - 1);
  });
  r.check(r.left === 0, "network", `${r.left} bytes follow it`);

  const { block } = net;
  const inner = channel === 255 ? 1 : product(box.slice(channel + 1));
  const positions = product(lengths);
  const numbers = new Int32Array(positions * count);
  const place = lengths.map(() => 0);
  for (let at = 0; at < positions; at += block) {
    const filled = Math.min(block, positions - at);
    for (let p = 0; p < filled; p++) {
      for (let a = 0; a < lengths.length; a++) net.x[a * block + p] = 2 * place[a] - (lengths[a] - 1);
      for (let a = lengths.length - 1; a >= 0 && ++place[a] === lengths[a]; a--) place[a] = 0;
    }
    const k = net.evaluate(filled);
    for (let c = 0; c < count; c++) {
      for (let p = 0; p < filled; p++) {
        const q = at + p;
        const index = channel === 255 ? q : (Math.floor(q / inner) * count + c) * inner + (q % inner);
        numbers[index] = Math.min(Math.max(k[c * block + p], low), high);
      }
    }
  }
  return scaled(type, numbers, e);
}
