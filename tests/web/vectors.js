// Decodes vectors, in Node and in pages.
import { ChunkError, decode, decodeSync, describe } from "../../inrstore/views/web/inrstore.js";
import { crc32c, sha256 } from "../../inrstore/views/web/bytes.js";

const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const hex = (bytes) => Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");

/** A decoder of AV1 that knows the samples. */
function putSamples(samples, units, width, height, put) {
  units.forEach((_, i) => put(i, samples.subarray(i * width * height, (i + 1) * width * height), width));
  return Promise.resolve(units.length);
}

/** Of all [{name, data (base64), and the fields of its entry in the index}]: {passed, failures, unsupported}. */
export async function runVectors(bundle) {
  const out = { passed: 0, failures: [], unsupported: [] };
  for (const entry of bundle) {
    const data = bytesOf(entry.data);
    const expected = { shape: entry.shape, dtype: entry.dtype, shared: entry.shared?.map(bytesOf) };
    const samples = entry.samples && new Uint16Array(bytesOf(entry.samples).buffer);
    if (samples) expected.av1 = (...given) => putSamples(samples, ...given);
    let problem;
    try {
      const made = await decode(data, expected);
      if (entry.error) problem = `not refused; ${entry.error} ${entry.field} is wanted`;
      else if (hex(sha256(made.bytes)) !== entry.sha256) problem = "other values";
      else if (describe(data).mode !== entry.mode || made.mode !== entry.mode) problem = "another mode";
      else if (made.fortran !== (entry.order === "F")) problem = "another order";
      else if (made.bigEndian !== entry.dtype.startsWith(">")) problem = "another byte order";
      else if (made.values.length !== entry.shape.reduce((a, b) => a * b, 1)) problem = "another number of values";
    } catch (error) {
      if (!(error instanceof ChunkError)) problem = error.stack;
      else if (error.code !== entry.error || error.field !== entry.field) {
        if (error.code === "UnsupportedVersionError" && error.field === "mode") {
          out.unsupported.push(entry.name);
          continue;
        }
        problem = `${error.code} ${error.message}; ${entry.error} ${entry.field} is wanted`;
      }
    }
    if (problem) out.failures.push(`${entry.name}: ${problem}`);
    else out.passed++;
  }
  return out;
}

/** What happens to calls that cannot be right: the field of each error, or "none". */
export async function misuse({ data, raw, av1 }) {
  const frame = bytesOf(data);
  const { shape, dtype } = describe(frame);
  const calls = {
    shape: () => decode(frame, { shape: [...shape].reverse() }),
    ndim: () => decode(frame, { shape: shape.slice(1) }),
    dtype: () => decode(frame, { dtype: dtype === "int16" ? "uint16" : "int16" }),
    unknown: () => decode(frame, { dtype: "int17" }),
    right: () => decode(frame, { shape, dtype }),
    buffer: async () => {
      const { bytes } = await decode(Buffer.from(raw, "base64")); // a part of a larger buffer
      if (hex(bytes) !== hex((await decode(bytesOf(raw))).bytes)) throw new Error("other values");
    },
    sync: () => decodeSync(frame, { shape, dtype }),
    av1: () => decodeSync(bytesOf(av1)),
  };
  const out = {};
  for (const [name, call] of Object.entries(calls)) {
    try {
      await call();
      out[name] = "none";
    } catch (error) {
      out[name] = error instanceof ChunkError ? error.field : error.name;
    }
  }
  return out;
}

/** Frames with some bytes changed and right checksums: how many are refused, and what goes wrong otherwise. */
export async function fuzz({ bundle, count }) {
  let seed = 11;
  const random = (n) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor((seed / 2 ** 32) * n);
  };
  const out = { refused: 0, crashes: [] };
  for (let i = 0; i < count; i++) {
    const entry = bundle[random(bundle.length)];
    const data = bytesOf(entry.data);
    const payload = 16 + 4 * data[7];
    const most = data.length - 4 - payload;
    for (let k = random(3); k >= 0; k--) data[payload + random(random(2) ? Math.min(60, most) : most)] = random(256);
    new DataView(data.buffer).setUint32(data.length - 4, crc32c(data.subarray(0, -4)), true);
    try {
      await decode(data);
    } catch (error) {
      if (error instanceof ChunkError) out.refused++;
      else out.crashes.push(`${entry.name}: ${error.stack}`);
    }
  }
  return out;
}
