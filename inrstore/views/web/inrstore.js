// Frames of the inrstore chunk format, version 1 (specs/inrstore-1.md). Section numbers are those of that document.
import { av1 } from "./av1.js";
import { ChunkError, Reader, crc32c, plain, product } from "./bytes.js";
import { readEnvelope } from "./envelope.js";
import { neural } from "./neural.js";
import { planes } from "./planes.js";
import { predictor } from "./predictor.js";
import { siren } from "./siren.js";
import { superres } from "./superres.js";
import { transform } from "./transform.js";
import { TYPES, fromHalf, typeOf } from "./types.js";

export { ChunkError };

/** Names of the modes, and what decodes the box of each from the payload. */
const MODES = [
  ["raw"],
  ["constant"],
  ["byteplanes", planes],
  ["siren", siren],
  ["transform", transform],
  ["predictor", predictor],
  ["neural", neural],
  ["av1", av1],
  ["superres", superres],
];

/**
 * Read the header of a frame, and check its checksum.
 *
 * @param {Uint8Array} bytes a whole frame
 * @returns {{mode: string, dtype: string, shape: number[], bigEndian: boolean, fortran: boolean}}
 */
export function describe(bytes) {
  const { mode, type, shape, bigEndian, fortran } = readHeader(bytes);
  return { mode, dtype: type.name, shape, bigEndian, fortran };
}

/**
 * Decode a frame.
 *
 * @param {Uint8Array} bytes a whole frame
 * @param {object} [expected]
 * @param {number[]} [expected.shape] refuse another shape
 * @param {string} [expected.dtype] refuse another type ("int16" or "<i2")
 * @param {Uint8Array[]} [expected.shared] parameters of the codec configuration (section 10.1)
 * @param {Function} [expected.av1] decodes AV1 where there is no WebCodecs: `await av1(units, width, height, put)`
 *   calls `put(frame, luma, stride)`, luma a Uint16Array of samples, for each frame shown, and returns their number
 * @returns {Promise<{mode: string, dtype: string, shape: number[], bigEndian: boolean, fortran: boolean,
 *   bytes: Uint8Array, values: TypedArray}>} values in C order; `bytes` are theirs, little-endian. Values of float16
 *   are a Float16Array where there is one, else a Float32Array; those of bool a Uint8Array.
 * @throws {ChunkError} if the frame is damaged, not valid, or needs what is not here
 */
export async function decode(bytes, expected = {}) {
  const job = begin(bytes, expected);
  return job.finish(await job.decode());
}

/** As `decode`, at once; of mode av1, which has no synchronous decoder, it is refused. */
export function decodeSync(bytes, expected = {}) {
  const job = begin(bytes, expected);
  if (job.mode === "av1") throw new ChunkError("mode", "av1 is decoded by decode() only", "UnsupportedVersionError");
  return job.finish(job.decode());
}

function begin(bytes, { shape, dtype, shared = [], av1: samples }) {
  const wanted = dtype && typeOf(dtype);
  if (dtype && !wanted) throw new RangeError(`no chunk has the type ${dtype}`);
  const header = readHeader(bytes, shape, wanted);
  const { r, type, mode } = header;
  const done = (values) => result(header, values);
  r.scope = mode;
  const count = product(header.shape);
  r.scope = "";
  r.check(mode === "raw" || count, "shape", "a chunk without values that is not raw");
  r.scope = mode;
  if (mode === "raw") {
    const data = r.take(Math.min(r.left, count * type.size), "values");
    r.check(r.left === 0 && data.length === count * type.size, "values", `${r.bytes.length} bytes`);
    return { mode, decode: () => new type.Store(data.slice().buffer), finish: done };
  }
  if (mode === "constant") {
    const [value] = new type.Bits(r.take(type.size, "value").slice().buffer);
    r.check(r.left === 0 || (r.u8("outside") === 1 && r.left === 0), "outside", "other bytes follow");
    return { mode, decode: () => new type.Store(new type.Bits(count).fill(value).buffer), finish: done };
  }
  const envelope = readEnvelope(r, type, header.shape);
  return {
    mode,
    decode: () => header.decoder(r, envelope.type, envelope.box, shared, samples),
    finish: (values) => {
      if (envelope.type.kind === "b") checkBool(values);
      return done(envelope.finish(values));
    },
  };
}

/** Sections 2 and 2.1. `r` is left at the payload. */
function readHeader(given, shape, type) {
  const bytes = plain(given);
  const r = new Reader(bytes);
  r.check([0x89, 0x49, 0x4e, 0x52].every((byte, i) => bytes[i] === byte), "magic", "this is no inrstore chunk");
  r.check(bytes.length >= 20, "frame", `${bytes.length} bytes are too few`);
  const body = bytes.subarray(0, bytes.length - 4);
  const crc = new Reader(bytes.subarray(bytes.length - 4)).u32("frame_crc");
  r.check(crc32c(body) === crc, "frame_crc", "the frame is damaged");
  const h = new Reader(body);
  h.at = 4;
  const version = h.u8("version");
  if (version !== 1) h.fail("version", `${version} is not 1`, "UnsupportedVersionError");
  const number = h.u8("mode");
  const [mode, decoder] = MODES[number] ?? [number];
  if (number > 1 && !decoder) h.fail("mode", `${mode} is not supported here`, "UnsupportedVersionError");
  const code = h.u8("dtype");
  const found = TYPES[(code & 63) - 1];
  h.check(found && (found.size > 1 || code < 128), "dtype", `${code} is reserved`);
  const ndim = h.limited("u8", "ndim", 0, 8);
  const lengths = h.many("u32", ndim, "shape");
  h.limit(product(lengths.map((n) => n || 1)) <= 2 ** 27, "shape", `${lengths} has too many values`);
  const same = !shape || (shape.length === ndim && shape.every((n, a) => n === lengths[a]));
  h.check(same, "shape", `${lengths}, not ${shape}`);
  h.check(!type || type === found, "dtype", `${found.name}, not ${type?.name}`);
  const decodedCrc = h.u32("decoded_crc");
  const length = h.u32("payload_length");
  h.check(length === h.left, "payload_length", `${length}, but ${h.left} bytes are there`);
  return { r: new Reader(h.rest()), mode, decoder, type: found, shape: lengths, decodedCrc,
           bigEndian: code > 127, fortran: (code & 64) !== 0 }; // prettier-ignore
}

function checkBool(values) {
  if (values.some((x) => x > 1)) throw new ChunkError("payload", "a value of bool is neither 0 nor 1");
}

function result({ mode, type, shape, bigEndian, fortran, decodedCrc }, data) {
  if (type.kind === "b") checkBool(data);
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  if (crc32c(bytes) !== decodedCrc) throw new ChunkError("decoded_crc", "the values are not those that were coded");
  let values = data;
  if (type.name === "float16") {
    const Half = globalThis.Float16Array;
    values = Half ? new Half(data.buffer) : Float32Array.from(data, fromHalf);
  }
  return { mode, dtype: type.name, shape, bigEndian, fortran, bytes, values };
}
