// Section 6: tables of symbols, and interleaved rANS.
import { ChunkError } from "./bytes.js";

/** States and words of a stream that fills `bytes`; errors name `states` or `words`. */
export class Stream {
  constructor(bytes, lanes, states, words, ends = states) {
    if (bytes.length < 4 * lanes) throw new ChunkError(states, "states are missing");
    if (bytes.length % 2) throw new ChunkError(words, "half a word is left over");
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.x = new Uint32Array(lanes);
    for (let i = 0; i < lanes; i++) {
      this.x[i] = view.getUint32(4 * i, true);
      if (this.x[i] < 65536) throw new ChunkError(states, `state ${i} is below 2^16`);
    }
    this.words = new Uint16Array(bytes.slice(4 * lanes).buffer);
    this.next = 0;
    this.lane = 0;
    this.names = { words, ends };
  }

  missing() {
    throw new ChunkError(this.names.words, "words are missing");
  }

  /** The low 14 bits of the state of the lane whose turn it is. */
  slot() {
    return this.x[this.lane] & 16383;
  }

  /** Take the symbol at `slot` with its count and start out of the lane. */
  pop(slot, count, start) {
    let x = (Math.imul(count, this.x[this.lane] >>> 14) + slot - start) >>> 0;
    if (x < 65536) {
      if (this.next >= this.words.length) this.missing();
      x = x * 65536 + this.words[this.next++];
    }
    this.x[this.lane] = x;
    if (++this.lane === this.x.length) this.lane = 0;
  }

  /** A symbol of two, of which 1 has start 0 and this count. */
  flag(count) {
    const slot = this.slot();
    const one = slot < count;
    this.pop(slot, one ? count : 16384 - count, one ? 0 : count);
    return one ? 1 : 0;
  }

  /** A symbol of a table as `lookup` makes them. */
  symbol(table) {
    const slot = this.slot();
    const s = table.symbols[slot];
    this.pop(slot, table.starts[s + 1] - table.starts[s], table.starts[s]);
    return s;
  }

  finish() {
    if (this.next !== this.words.length) throw new ChunkError(this.names.words, "words are left over");
    if (this.x.some((x) => x !== 65536)) throw new ChunkError(this.names.ends, "a state does not end at 2^16");
  }
}

/** Starts and the symbol of every slot, from counts that add up to 2^14. */
export function lookup(counts) {
  const starts = new Int32Array(counts.length + 1);
  const symbols = new Uint16Array(16384);
  counts.forEach((count, s) => {
    starts[s + 1] = starts[s] + count;
    symbols.fill(s, starts[s], starts[s + 1]);
  });
  return { starts, symbols };
}

/** 6.1: the table of a group; symbol s of it stands for s - peak. */
export function geometric(slope, bend, peak) {
  // (x y) >> 32 in halves of y, since it does not fit a double
  const high = (x, y) => {
    const a = Math.floor(y / 65536);
    return Math.floor((x * a + Math.floor((x * (y - a * 65536)) / 65536)) / 65536);
  };
  const g = [2 ** 28];
  let r = slope + 1;
  let sum = 0;
  for (let k = 1; k <= peak; k++) {
    g.push(high(g[k - 1], r));
    r = high(r, bend + 1);
    sum += 2 * g[k];
  }
  const n = 2 * peak + 1;
  const f = g.map((x) => 1 + Math.floor((x * (16384 - n)) / (sum + g[0])));
  const counts = Array.from({ length: n }, (_, i) => f[Math.abs(i - peak)]);
  counts[peak] += 16384 - counts.reduce((a, b) => a + b);
  return lookup(counts);
}

export const lanesOf = (symbols) => Math.max(1, Math.ceil(symbols / 1024));

/** The symbols of groups [{count, peak, table}], which follow each other in one stream: an array for each. */
export function decodeGroups(bytes, groups) {
  const total = groups.reduce((n, g) => n + g.count, 0);
  const stream = new Stream(bytes, lanesOf(total), "rans.states", "rans.words");
  const out = groups.map(({ count, peak, table }) => {
    const symbols = new Int16Array(count);
    for (let i = 0; i < count; i++) symbols[i] = stream.symbol(table) - peak;
    return symbols;
  });
  stream.finish();
  return out;
}
