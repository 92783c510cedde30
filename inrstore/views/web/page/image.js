// An image of the server -> volumes: chunks are fetched as they are stored and decoded in this page, where that can be.
import { bytes as size } from "./dom.js";
import { DecodeError, decodeChunk, parallel } from "./pool.js";
import { fromHalf } from "../types.js";

const BASE = new URL("../../", import.meta.url);
export const MOST_KEPT = 2 ** 29; // bytes of decoded chunks
const MOST_CHUNK = 2 ** 29;
const STORES = { int8: Int8Array, int16: Int16Array, int32: Int32Array, int64: BigInt64Array, uint8: Uint8Array,
                 uint16: Uint16Array, uint32: Uint32Array, uint64: BigUint64Array, float32: Float32Array,
                 float64: Float64Array, bool: Uint8Array }; // prettier-ignore

const product = (list) => list.reduce((a, b) => a * b, 1);
const encoded = (path) => path.split("/").map(encodeURIComponent).join("/");

/** Decoded chunks by their addresses; those used longest ago go first. */
export class Kept {
  constructor(most) {
    [this.most, this.total, this.chunks] = [most, 0, new Map()];
  }

  get(key) {
    const found = this.chunks.get(key);
    if (found) this.chunks.delete(key), this.chunks.set(key, found);
    return found;
  }

  put(key, values) {
    if (values.byteLength > this.most || this.chunks.has(key)) return;
    this.chunks.set(key, values);
    this.total += values.byteLength;
    for (const [oldest, { byteLength }] of this.chunks) {
      if (this.total <= this.most) break;
      this.chunks.delete(oldest);
      this.total -= byteLength;
    }
  }
}

const kept = new Kept(MOST_KEPT);
const underway = new Map(); // address -> promise of values

export async function get(path, options) {
  const url = new URL(path, BASE);
  let answer;
  try {
    answer = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error(`the server does not answer (${error.message}); is inrstore serve still running?`);
  }
  if (!answer.ok) {
    const said = (await answer.text().catch(() => "")).trim();
    const text = answer.headers.get("content-type")?.includes("html") ? "" : said;
    const named = `${decodeURIComponent(url.pathname)}: ${text || `${answer.status} ${answer.statusText}`}`;
    const itself = answer.status === 500 && text; // says what is wrong, and with what
    throw Object.assign(new Error(itself ? text : named), { status: answer.status });
  }
  return answer;
}

export const getJson = async (path, options) => (await get(path, options)).json();

/** An image, of which volumes are asked for one by one. */
export class RemoteImage {
  /** `said` is what image.json says of it. */
  constructor(said) {
    this.said = said;
    this.shape = said.shape;
    const space = this.shape.slice(-3);
    [this.x, this.y, this.z] = [...space].reverse().concat(1, 1, 1);
    this.leading = this.shape.slice(0, Math.max(0, this.shape.length - 3));
    this.volumes = product(this.leading);
    this.values = product(space);
    [this.slope, this.inter] = [said.slope || 1, said.inter || 0];
    this.affine = said.affine ?? [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]; // prettier-ignore
    this.fetched = { chunks: 0, bytes: 0, decoding: 0 };
    this.elsewhere = ""; // why the server decodes
    this.modes = new Set();
    this.masked = false;
  }

  /** Read what the store says of its arrays, once. */
  #layout() {
    return (this.layout ??= this.#read().catch((error) => {
      this.layout = undefined;
      throw error;
    }));
  }

  async #read() {
    const kind = this.elsewhere ? "zarr" : "inr";
    const group = await getJson(`${kind}/${encoded(this.said.store)}/zarr.json`).catch((error) => {
      if (error.status !== 404 || this.elsewhere) throw error;
      throw new DecodeError({ message: "this is a store of Zarr v2", code: "UnsupportedVersionError" });
    });
    const { image, bval } = group.consolidated_metadata?.metadata ?? {};
    this.masked = Boolean(group.attributes?.inrstore?.mask);
    if (!image) throw new Error(`${this.said.path}: the store says nothing of its image`);
    const { codecs, chunk_grid: grid, chunk_key_encoding: keys, data_type: dtype } = image;
    const names = codecs.map(({ name }) => name).join(", ");
    if (!this.elsewhere && names !== "inrstore") {
      throw new DecodeError({ message: `chunks of ${names}`, code: "UnsupportedVersionError" });
    }
    const chunks = grid.configuration.chunk_shape;
    const shared = (codecs[0].configuration?.shared ?? []).map((text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)));
    const held = product(chunks) * (STORES[dtype] ?? Float32Array).BYTES_PER_ELEMENT;
    if (held > MOST_CHUNK) throw new Error(`${this.said.path}: a chunk has ${size(held)}, more than this page holds`);
    return { chunks, dtype, shared, separator: keys.configuration?.separator ?? "/", bval };
  }

  /**
   * Return the values of a volume as they are stored, x fastest.
   *
   * @param {number} number of the volume, counted over all axes beyond space, the last of them fastest
   * @param {object} [options]
   * @param {Function} [options.progress] is called with words
   * @param {AbortSignal} [options.signal]
   */
  async volume(number, { progress = () => {}, signal } = {}) {
    if (!this.elsewhere) {
      try {
        return await this.#assemble(number, progress, signal);
      } catch (error) {
        if (!(error instanceof DecodeError && error.elsewhere)) throw error;
        [this.elsewhere, this.layout] = [error.message, undefined];
      }
    }
    return this.#assemble(number, progress, signal);
  }

  /** Return the b-values of the volumes, or null. */
  async bvalues() {
    if (this.leading.length !== 1) return null;
    const { bval } = await this.#layout();
    if (bval?.shape[0] !== this.volumes || !["float32", "float64"].includes(bval.data_type)) return null;
    const answer = await get(`zarr/${encoded(this.said.store)}/bval/c/0`);
    return new STORES[bval.data_type](await answer.arrayBuffer());
  }

  /** Return the values of a volume of the original, which the server reads. */
  async original(number, { progress = () => {}, signal } = {}) {
    progress("the server reads the original …");
    const answer = await get(`original/${encoded(this.said.path)}/${number}`, { signal });
    const { dtype } = await this.#layout();
    return valuesOf(await answer.arrayBuffer(), dtype, this.values);
  }

  async #assemble(number, progress, signal) {
    const layout = await this.#layout();
    const place = [];
    for (let a = this.leading.length - 1, rest = number; a >= 0; a--) {
      place.unshift(rest % this.leading[a]);
      rest = Math.floor(rest / this.leading[a]);
    }
    const spatial = this.shape.length - place.length;
    const chunkOf = place.map((p, a) => Math.floor(p / layout.chunks[a]));
    const counts = this.shape.map((n, a) => Math.ceil(n / layout.chunks[a])).slice(place.length);
    const wanted = Array.from({ length: product(counts) }, (_, i) => {
      const index = [];
      for (let a = spatial - 1, rest = i; a >= 0; a--) {
        index.unshift(rest % counts[a]);
        rest = Math.floor(rest / counts[a]);
      }
      return index;
    });
    let out = null;
    let done = 0;
    const say = (text) => progress(product(counts) > 1 ? `${text}, ${done} of ${product(counts)} chunks done` : text);
    const work = async () => {
      for (let index = wanted.shift(); index; index = wanted.shift()) {
        signal?.throwIfAborted();
        const values = await this.#chunk([...chunkOf, ...index], layout, say);
        out ??= new values.constructor(this.values);
        this.#place(out, values, place, index, layout.chunks);
        done++;
      }
    };
    const all = Array.from({ length: Math.min(parallel, wanted.length) }, work);
    await Promise.all(all).finally(() => wanted.splice(0)); // after an error the others stop, too
    return out;
  }

  /** Return the values of a chunk; two volumes that wait for one have it fetched and decoded once. */
  #chunk(index, layout, progress) {
    const key = `image/${["c", ...index].join(layout.separator)}`;
    const address = `${this.elsewhere ? "zarr" : "inr"}/${encoded(this.said.store)}/${key}`;
    const before = kept.get(address) ?? underway.get(address);
    if (before) return before;
    const values = this.#fetched(key, address, layout, progress).finally(() => underway.delete(address));
    underway.set(address, values);
    return values;
  }

  async #fetched(key, address, { chunks, dtype, shared }, progress) {
    const here = !this.elsewhere;
    progress(here ? `fetching ${key}` : `the server decodes ${key}`);
    const data = await (await get(address)).arrayBuffer();
    this.fetched.chunks++;
    this.fetched.bytes += data.byteLength;
    let values;
    if (here) {
      progress(`decoding ${key}, ${size(data.byteLength)}, in this page`);
      const began = performance.now();
      try {
        const decoded = await decodeChunk({ bytes: new Uint8Array(data), shape: chunks, dtype, shared });
        values = decoded.values;
        this.modes.add(decoded.mode);
      } catch (error) {
        throw error instanceof DecodeError ? new DecodeError(error, key) : error;
      }
      this.fetched.decoding += performance.now() - began;
    } else values = valuesOf(data, dtype, product(chunks));
    kept.put(address, values);
    return values;
  }

  /** Copy what a chunk has of a volume. */
  #place(out, values, place, index, chunks) {
    const lead = place.length;
    const inside = chunks.slice(lead);
    let from = 0;
    for (let a = 0; a < lead; a++) from = from * chunks[a] + (place[a] % chunks[a]);
    from *= product(inside);
    const pad = (list, value) => Array(3 - list.length).fill(value).concat(list);
    const [cz, cy, cx] = pad(inside, 1);
    const [iz, iy, ix] = pad(index, 0);
    const [z0, y0, x0] = [iz * cz, iy * cy, ix * cx];
    const width = Math.min(cx, this.x - x0);
    for (let z = 0; z < cz && z0 + z < this.z; z++) {
      for (let y = 0; y < cy && y0 + y < this.y; y++) {
        const row = from + (z * cy + y) * cx;
        out.set(values.subarray(row, row + width), ((z0 + z) * this.y + y0 + y) * this.x + x0);
      }
    }
  }
}

/** Bytes of the server, little-endian -> values. */
function valuesOf(buffer, dtype, count) {
  const half = dtype === "float16";
  const Store = half ? Uint16Array : STORES[dtype];
  if (!Store || buffer.byteLength !== count * Store.BYTES_PER_ELEMENT) {
    throw new Error(`the server sent ${buffer.byteLength} bytes for ${count} values of ${dtype}`);
  }
  const values = new Store(buffer);
  return half ? Float32Array.from(values, fromHalf) : values;
}
