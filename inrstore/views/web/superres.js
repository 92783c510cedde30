// Section 17: mode 8, a coarse image from a network of the place, and a second network that refines it.
import { ChunkError, Reader, isNamed, plain, product } from "./bytes.js";
import { BLOCK, multiply, readNetwork, short } from "./network.js";
import { decodeGroups, geometric, lanesOf } from "./rans.js";
import { checkOutputs, scaled } from "./types.js";

const [DENSE, OPERATOR, MOST] = [68, 79, 1023];
const LARGEST = 2 ** 28; // numbers of all maps together that are held here
const clamp = (x, most = MOST) => Math.min(Math.max(x, -most), most);
const range = (n) => Array.from({ length: n }, (_, i) => i);

export function superres(r, type, box, shared) {
  if (!"iuf".includes(type.kind)) throw new ChunkError("mode", `superres cannot code ${type.name}`);
  const channel = r.u8("channel_axis");
  r.check(channel === 255 || channel < box.length, "channel_axis", `${channel} is no axis`);
  const space = box.filter((_, axis) => axis !== channel);
  r.check(space.length >= 1 && space.length <= 3, "channel_axis", `${space.length} axes are left`);
  const e = r.i8("exponent");
  const [low, high] = [r.i32("low"), r.i32("high")];
  checkOutputs(r, type, e, low, high);
  let refiner;
  if (r.choice("u8", "place", 1)) {
    const digest = r.take(32, "digest");
    const bytes = shared.find((b) => isNamed(b, digest));
    r.check(bytes, "digest", "no shared parameter has this SHA-256");
    const inner = new Reader(plain(bytes), r.scope);
    refiner = new Refiner(inner);
    r.check(inner.left === 0, "digest", "bytes follow the shared parameter");
  } else refiner = new Refiner(r);
  const added = 3 - space.length;
  r.check(refiner.scales.every((s, a) => a >= added || !s), "scales", `${refiner.scales} for ${space.length} axes`);
  const volume = [...Array(added).fill(1), ...space];
  refiner.place(r, volume);
  const shifts = ["input_shift", "output_shift"].map((name) => r.limited("u8", name, 1, 40));
  const count = channel === 255 ? 1 : box[channel];
  if (count * 8 > r.left) r.fail("units", "bytes are missing");
  const units = range(count).map(() => {
    const [c, g, s] = [r.i32("units"), short(r.u16("units")), short(r.u16("units"))];
    r.limit(Math.max(high - c, c - low) * g < 2 ** 52, "units", `a gain of ${g} with a centre of ${c}`);
    return { c, g, s };
  });
  const coarse = refiner.lengths(0);
  const long = coarse.filter((m) => m > 1);
  const net = readNetwork(r, (head) => {
    r.check(head.inputs === 0 && head.columns === long.length, "inputs", "they are not the axes of the coarse grid");
    r.check(head.outputs === count, "outputs", `${head.outputs}, not ${count}`);
    return long.map((m) => m - 1);
  });
  r.check(r.left === 0, "network", `${r.left} bytes follow it`);

  const images = coarseImages(net, long, count, low, high);
  const numbers = new Int32Array(product(box));
  const inner = channel === 255 ? 1 : product(box.slice(channel + 1));
  const positions = product(volume);
  units.forEach(({ c, g, s }, number) => {
    const image = images[number];
    const fine = doubled(image, coarse, volume, refiner.scales);
    const seen = (y) => Int16Array.from(y, (v) => clamp(floored((v - c) * g, shifts[0])));
    const sums = refiner.dense ? refiner.refineDense(seen(image)) : refiner.refineOperator(seen(image), seen(fine));
    for (let p = 0; p < positions; p++) {
      const index = channel === 255 ? p : (Math.floor(p / inner) * count + number) * inner + (p % inner);
      numbers[index] = Math.min(Math.max(fine[p] + floored(sums[p] * s, shifts[1]), low), high);
    }
  });
  return scaled(type, numbers, e);
}

/** floor((x + 2^(b-1)) / 2^b) */
const floored = (x, b) => Math.floor((x + 2 ** (b - 1)) * 2 ** -b);

/** 17.3: the network on the coarse grid, an image for each measurement. */
function coarseImages(net, long, count, low, high) {
  const { block } = net;
  const positions = product(long);
  const images = range(count).map(() => new Int32Array(positions));
  const place = long.map(() => 0);
  for (let at = 0; at < positions; at += block) {
    const filled = Math.min(block, positions - at);
    for (let p = 0; p < filled; p++) {
      for (let a = 0; a < long.length; a++) net.x[a * block + p] = 2 * place[a] - (long[a] - 1);
      for (let a = long.length - 1; a >= 0 && ++place[a] === long[a]; a--) place[a] = 0;
    }
    const k = net.evaluate(filled);
    images.forEach((image, c) => {
      for (let p = 0; p < filled; p++) image[at + p] = Math.min(Math.max(k[c * block + p], low), high);
    });
  }
  return images;
}

/** 17.3: u of k, for numbers of any image of the coarse grid. */
function doubled(image, coarse, volume, scales) {
  // Along each axis, for every fine position: both corners, as steps in the image, and the weight of the second.
  const axes = volume.map((n, a) => {
    const stride = product(coarse.slice(a + 1));
    const at = (j) => Math.min(Math.max(j, 0), coarse[a] - 1) * stride;
    return range(n).map((i) => {
      const t = 2 * i + 1 - 2 ** scales[a];
      const [j, whole] = [t >> (scales[a] + 1), 2 ** (scales[a] + 1)];
      const v = t - whole * j;
      return [at(j), at(j + 1), whole - v, v];
    });
  });
  const b = scales[0] + scales[1] + scales[2] + 3;
  const out = new Int32Array(product(volume));
  let to = 0;
  for (const [z0, z1, a0, a1] of axes[0]) {
    for (const [y0, y1, b0, b1] of axes[1]) {
      const [p, q, s, t] = [z0 + y0, z0 + y1, z1 + y0, z1 + y1];
      const [wp, wq, ws, wt] = [a0 * b0, a0 * b1, a1 * b0, a1 * b1];
      for (const [x0, x1, c0, c1] of axes[2]) {
        const one = wp * image[p + x0] + wq * image[q + x0] + ws * image[s + x0] + wt * image[t + x0];
        const other = wp * image[p + x1] + wq * image[q + x1] + ws * image[s + x1] + wt * image[t + x1];
        out[to++] = floored(c0 * one + c1 * other, b);
      }
    }
  }
  return out;
}

/** 17.2. A layer is [outputs, inputs, wide, relu, grid]; the grid of those on the fine one is null. */
class Refiner {
  constructor(r) {
    const bytes = r.left;
    const kind = r.u8("kind");
    r.check(kind === DENSE || kind === OPERATOR, "kind", `${kind} is reserved`);
    this.dense = kind === DENSE;
    const reach = r.choice("u8", "reach", 7);
    this.reach = [0, 1, 2].map((a) => (reach >> a) & 1);
    this.scales = r.many("u8", 3, "scales");
    r.limit(this.scales.every((s) => s <= 3), "scales", `${this.scales}`);
    const names = this.dense ? ["blocks", "layers", "growth", "first", "bottleneck"]
                             : ["layers", "channels", "width", "heads", "attentions"]; // prettier-ignore
    this.sizes = names.map((name) => r.u8(name));
    names.forEach((name, i) => r.limit(this.sizes[i] || name === "attentions", name, "it is 0"));
    this.layers = this.dense ? this.#denseLayers(r) : this.#operatorLayers(r);
    const n = this.layers.length - 1;
    this.taps = 3 ** (this.reach[0] + this.reach[1] + this.reach[2]);
    const counts = this.layers.map(([outputs, inputs, wide]) => outputs * inputs * (wide ? this.taps : 1));
    const biases = this.layers.slice(0, n).reduce((sum, [outputs]) => sum + outputs, 0);
    counts.splice(n, 0, biases);
    const parameters = counts.reduce((a, b) => a + b);
    const earned = Math.min(2 ** 22, 64 * bytes);
    r.limit(parameters <= earned, names[4], `${parameters} parameters, at most ${earned}`);
    this.multipliers = r.many("u32", n + 1, "multipliers");
    const groups = counts.map((count) => {
      const [slope, bend] = ["slope", "bend"].map((name) => 2 ** 32 - 1 - 32 * short(r.u16(name)));
      const peak = r.limited("u16", "peak", 0, MOST);
      return { count, peak, table: geometric(slope, bend, peak) };
    });
    const symbols = decodeGroups(r.take(2 * r.u32("words") + 4 * lanesOf(parameters), "words"), groups);
    [this.biases] = symbols.splice(n, 1);
    this.weights = symbols;
    this.#checkSums(r, n);
  }

  #denseLayers(r) {
    const [blocks, layers, growth, first, bottleneck] = this.sizes;
    const maps = first + blocks * layers * growth;
    r.limit(maps <= 2048, "growth", `${maps} maps`);
    const out = [[first, 1, true, true, 0]];
    for (let d = 0; d < blocks; d++) {
      out.push([growth, first + d * layers * growth, true, true, 0]);
      for (let j = 1; j < layers; j++) out.push([growth, j * growth, true, true, 0]);
    }
    out.push([bottleneck, maps, false, true, 0]);
    const doublings = Math.max(...this.scales);
    for (let j = 1; j <= doublings; j++) out.push([bottleneck, bottleneck, true, true, j]);
    return [...out, [1, bottleneck, true, false, doublings]];
  }

  #operatorLayers(r) {
    const [layers, channels, width, heads, attentions] = this.sizes;
    r.limit(width % heads === 0 && width / heads <= 16, "heads", `${heads} of a width of ${width}`);
    r.limit(attentions <= 2, "attentions", `${attentions} is above 2`);
    const out = range(layers).map((j) => [channels, j ? channels : 1, true, j < layers - 1, 0]);
    out.push([width, channels + 4, false, false, null]);
    for (let j = 0; j < attentions; j++) {
      out.push([3 * width, width, false, false, null], [width, width, false, true, null]);
      out.push([width, width, false, false, null]);
    }
    return [...out, [width, width, false, true, null], [1, width, false, false, null]];
  }

  #checkSums(r, n) {
    let unit = 0;
    this.weights.forEach((weights, l) => {
      const [outputs] = this.layers[l];
      const columns = weights.length / outputs;
      for (let h = 0; h < outputs; h++) {
        let sum = 0;
        for (let i = 0; i < columns; i++) sum += Math.abs(weights[h * columns + i]);
        r.limit(MOST * sum < 2 ** 24, "weights", `a row of layer ${l} sums up to ${sum}`);
        if (l === n) continue;
        const most = MOST * sum * this.multipliers[l] + Math.abs(this.biases[unit++]) * this.multipliers[n];
        r.limit(most < 2 ** 52, "weights", `a sum of layer ${l} is up to ${most}`);
      }
    });
  }

  /** The lengths of a grid. */
  lengths(grid) {
    return this.volume.map((n, a) => Math.ceil(n / 2 ** this.scales[a]) * 2 ** Math.min(grid, this.scales[a]));
  }

  /** Take in the volume, and check what it makes of products and maps. */
  place(r, volume) {
    this.volume = volume;
    const [blocks, layers, growth, first] = this.sizes;
    let products = 0;
    let largest = 0;
    for (const [outputs, inputs, wide, , grid] of this.layers) {
      let room = product(volume);
      if (grid !== null) {
        const padded = this.lengths(grid).map((m, a) => m + 2 * this.reach[a]);
        room = product(padded);
        const maps = grid ? outputs : this.dense ? first + blocks * layers * growth : this.sizes[1];
        const held = this.reach[0] ? room : room / padded[0];
        r.limit(held * maps <= 2 ** 27, "scales", `${maps} maps of ${padded}`);
        largest = Math.max(largest, room * maps);
      } else largest = Math.max(largest, room * this.sizes[2]);
      products += outputs * inputs * (wide ? this.taps : 1) * room;
    }
    r.limit(products <= 2 ** 20 * product(volume), "scales", `${products} products`);
    if (largest > LARGEST) r.fail("scales", `${largest} numbers are more than are held here`, "UnsupportedVersionError");
  }

  /** An empty map of a grid, with zeros around it as far as a layer sees. */
  #room(grid) {
    const lengths = this.lengths(grid);
    const padded = lengths.map((m, a) => m + 2 * this.reach[a]);
    const strides = [padded[1] * padded[2], padded[2], 1];
    const origin = this.reach.reduce((sum, one, a) => sum + one * strides[a], 0);
    // From the first to the last number that is not around it: a layer sums up this range as one row.
    const end = origin + lengths.reduce((sum, m, a) => sum + (m - 1) * strides[a], 0) + 1;
    return { lengths, strides, origin, end, size: product(padded) };
  }

  /** Copy the numbers of an image between the zeros, `steps` apart along each axis. */
  #placed(image, lengths, room, steps = [1, 1, 1]) {
    const out = new Int16Array(room.size);
    const [s0, s1, s2] = room.strides.map((stride, a) => stride * steps[a]);
    let from = 0;
    for (let z = 0; z < lengths[0]; z++) {
      for (let y = 0; y < lengths[1]; y++) {
        for (let x = 0, to = room.origin + z * s0 + y * s1; x < lengths[2]; x++, to += s2) out[to] = image[from++];
      }
    }
    return out;
  }

  /** The numbers of a map without what is around them, of the first so many positions. */
  #taken(map, lengths, room) {
    const out = new map.constructor(product(lengths));
    const [s0, s1] = room.strides;
    for (let z = 0, to = 0; z < lengths[0]; z++) {
      for (let y = 0; y < lengths[1]; y++, to += lengths[2]) {
        const at = room.origin + z * s0 + y * s1;
        out.set(map.subarray(at, at + lengths[2]), to);
      }
    }
    return out;
  }

  /** The sums of products of one output of a layer, everywhere in a room; between rows they mean nothing. */
  #sums(l, h, maps, room, sums) {
    const [, inputs, wide] = this.layers[l];
    const reach = wide ? this.reach : [0, 0, 0];
    const weights = this.weights[l].subarray(h * inputs * (wide ? this.taps : 1));
    sums.fill(0);
    let index = 0;
    for (let z = -reach[0]; z <= reach[0]; z++) {
      for (let y = -reach[1]; y <= reach[1]; y++) {
        for (let x = -reach[2]; x <= reach[2]; x++) {
          const shift = z * room.strides[0] + y * room.strides[1] + x;
          for (let k = 0; k < inputs; k++) {
            const w = weights[index++];
            if (!w) continue;
            const map = maps[k];
            for (let p = room.origin, end = room.end; p < end; p++) sums[p] += w * map[p + shift];
          }
        }
      }
    }
    return sums;
  }

  /** The maps that a layer gives; `unit` is the first of its biases. */
  #convolve(l, unit, maps, room) {
    const [outputs, , , relu] = this.layers[l];
    const low = relu ? 0 : -MOST;
    const [multiplier, last] = [this.multipliers[l], this.multipliers.at(-1)];
    const sums = new Int32Array(room.size);
    const [n0, n1, n2] = room.lengths;
    return range(outputs).map((h) => {
      this.#sums(l, h, maps, room, sums);
      const b = this.biases[unit + h] * last + 2 ** 23;
      const out = new Int16Array(room.size);
      for (let z = 0; z < n0; z++) {
        for (let y = 0; y < n1; y++) {
          let p = room.origin + z * room.strides[0] + y * room.strides[1];
          for (const end = p + n2; p < end; p++) {
            out[p] = Math.min(Math.max(Math.floor((sums[p] * multiplier + b) * 2 ** -24), low), MOST);
          }
        }
      }
      return out;
    });
  }

  /** 17.4. */
  refineDense(image) {
    const [blocks, layers] = this.sizes;
    let room = this.#room(0);
    let [number, unit] = [0, 0];
    const next = (seen) => {
      const out = this.#convolve(number, unit, seen, room);
      unit += this.layers[number++][0];
      return out;
    };
    let maps = next([this.#placed(image, room.lengths, room)]);
    for (let d = 0; d < blocks; d++) {
      const first = maps.length;
      for (let j = 0; j < layers; j++) maps.push(...next(j ? maps.slice(first) : maps.slice(0, first)));
    }
    maps = next(maps);
    for (let j = 1; j <= Math.max(...this.scales); j++) {
      const before = room;
      room = this.#room(j);
      const steps = this.scales.map((e) => (e >= j ? 2 : 1));
      maps = next(maps.map((m) => this.#placed(this.#taken(m, before.lengths, before), before.lengths, room, steps)));
    }
    return this.#taken(this.#sums(number, 0, maps, room, new Int32Array(room.size)), this.volume, room);
  }

  /** 17.5. */
  refineOperator(image, fine) {
    const [layers, channels, width, heads, attentions] = this.sizes;
    const room = this.#room(0);
    let maps = [this.#placed(image, room.lengths, room)];
    let unit = 0;
    for (let j = 0; j < layers; j++, unit += channels) maps = this.#convolve(j, unit, maps, room);
    const inputs = maps.map((m) => {
      return doubled(this.#taken(m, room.lengths, room), room.lengths, this.volume, this.scales);
    });
    inputs.push(fine, ...this.#cells());
    const n = product(this.volume);
    const at = (l) => new Point(this, l, BLOCK);
    const blocks = function* () {
      for (let from = 0; from < n; from += BLOCK) yield [from, Math.min(BLOCK, n - from)];
    };
    let number = layers;
    const h = range(width).map(() => new Int16Array(n));
    const first = at(number++);
    for (const [from, filled] of blocks()) {
      first.fill(inputs, from, filled);
      first.run(filled, (row, p, v) => (h[row][from + p] = v));
    }
    for (let j = 0; j < attentions; j++) {
      const [split, second, third] = [at(number++), at(number++), at(number++)];
      const kernel = this.#kernel(h, split, blocks, n);
      const d = width / heads;
      for (const [from, filled] of blocks()) {
        split.fill(h, from, filled);
        split.run(filled, (row, p, v) => (split.kept[row * BLOCK + p] = v));
        for (let row = 0; row < width; row++) {
          const head = Math.floor(row / d);
          for (let p = 0; p < filled; p++) {
            let sum = 0;
            for (let i = 0; i < d; i++) sum += split.kept[(head * d + i) * BLOCK + p] * kernel[row * d + i];
            second.x[row * BLOCK + p] = clamp(floored(sum, 10) + h[row][from + p]);
          }
        }
        second.run(filled, (row, p, v) => (third.x[row * BLOCK + p] = v));
        third.run(filled, (row, p, v) => (h[row][from + p] = clamp(h[row][from + p] + v)));
      }
    }
    const [last, readout] = [at(number), at(number + 1)];
    const out = new Int32Array(n);
    for (const [from, filled] of blocks()) {
      last.fill(h, from, filled);
      last.run(filled, (row, p, v) => (readout.x[row * BLOCK + p] = v));
      out.set(readout.sums(filled).subarray(0, filled), from);
    }
    return out;
  }

  /** For each axis the place in the coarse cell, at every position. */
  #cells() {
    const out = this.volume.map(() => new Int16Array(product(this.volume)));
    const [n0, n1, n2] = this.volume;
    for (let z = 0, p = 0; z < n0; z++) {
      for (let y = 0; y < n1; y++) {
        for (let x = 0; x < n2; x++, p++) {
          [z, y, x].forEach((i, a) => {
            const side = 2 ** this.scales[a];
            out[a][p] = (2 * (i % side) + 1 - side) * 2 ** (10 - this.scales[a]);
          });
        }
      }
    }
    return out;
  }

  /** K of each head: for each unit j of all heads, in rows of i. */
  #kernel(h, split, blocks, n) {
    const [, , width, heads] = this.sizes;
    const d = width / heads;
    const sums = new Float64Array(width * d);
    const [keys, values] = [new Float64Array(d), new Float64Array(d)];
    for (const [from, filled] of blocks()) {
      split.fill(h, from, filled);
      split.run(filled, (row, p, v) => (split.kept[row * BLOCK + p] = v));
      for (let head = 0; head < heads; head++) {
        for (let p = 0; p < filled; p++) {
          const place = (part) => (part * width + head * d) * BLOCK + p;
          normalise(split.kept, place(1), d, keys);
          normalise(split.kept, place(2), d, values);
          for (let j = 0, to = head * d * d; j < d; j++) {
            for (let i = 0; i < d; i++) sums[to++] += keys[i] * values[j];
          }
        }
      }
    }
    return sums.map((sum) => clamp(floored(Math.floor((16 * sum) / n), 10)));
  }
}

/** 17.5: the units of a head at a position, `BLOCK` apart. All numbers are exact: below 2^52. */
function normalise(x, at, d, out) {
  let [sum, square] = [0, 0];
  for (let i = 0; i < d; i++) sum += x[at + i * BLOCK];
  for (let i = 0; i < d; i++) {
    out[i] = d * x[at + i * BLOCK] - sum;
    square += out[i] * out[i];
  }
  square *= 4096 * d;
  let root = Math.floor(Math.sqrt(square));
  if (root * root > square) root--;
  root = Math.max(1, root);
  const half = Math.floor(root / 2);
  for (let i = 0; i < d; i++) out[i] = Math.floor((16384 * d * out[i] + half) / root);
}

/** A layer that sees one position, evaluated in blocks of them. */
class Point {
  constructor(refiner, l, block) {
    const [outputs, inputs, , relu] = refiner.layers[l];
    const rows = outputs + (outputs % 2);
    const unit = refiner.layers.slice(0, l).reduce((sum, layer) => sum + layer[0], 0);
    Object.assign(this, { outputs, inputs, block, low: relu ? 0 : -MOST, multiplier: refiner.multipliers[l] });
    this.weights = new Float64Array(rows * inputs);
    this.weights.set(refiner.weights[l]);
    this.biases = Array.from(refiner.biases.subarray(unit, unit + outputs), (b) => b * refiner.multipliers.at(-1));
    this.x = new Float64Array(inputs * block);
    this.y = new Float64Array(rows * block);
    this.kept = new Float64Array(outputs * block);
  }

  fill(maps, from, filled) {
    maps.forEach((map, k) => this.x.set(map.subarray(from, from + filled), k * this.block));
  }

  sums(filled) {
    multiply(this.weights, this.x, this.y, this.outputs, this.inputs, filled, this.block);
    return this.y;
  }

  /** Call `put(output, position, value)` for all outputs of the positions in `x`. */
  run(filled, put) {
    this.sums(filled);
    for (let h = 0; h < this.outputs; h++) {
      const b = this.biases[h] + 2 ** 23;
      for (let p = 0, q = h * this.block; p < filled; p++, q++) {
        put(h, p, Math.min(Math.max(Math.floor((this.y[q] * this.multiplier + b) * 2 ** -24), this.low), MOST));
      }
    }
  }
}
