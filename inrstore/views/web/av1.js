// Section 15: mode 7, frames of an AV1 sequence. The samples are left to a decoder of AV1: that of the browser
// (WebCodecs), or one that the caller gives.
import { ChunkError, product } from "./bytes.js";
import { correct, readCorrection } from "./inloop.js";
import { checkOutputs, scaled } from "./types.js";

const DELIMITER = [0x12, 0x00];

export async function av1(r, type, box, _shared, decoder = webCodecs) {
  if (type.kind === "b") throw new ChunkError("mode", "av1 cannot code bool");
  const flags = r.choice("u8", "flags", 1);
  const rows = r.u8("rows");
  r.check(rows < box.length, "rows", `${rows} is no axis`);
  const columns = r.u8("columns");
  r.check(columns < box.length && columns !== rows, "columns", `${columns} is no other axis`);
  const shift = r.limited("u8", "shift", 1, 45);
  const e = r.i8("exponent");
  const [low, high] = [r.i32("low"), r.i32("high")];
  checkOutputs(r, type, e, low, high);
  const gain = r.positive("u32", "gain");
  const offset = Number(r.i64("offset")); // one that is rounded is beyond the limit
  r.limit(Math.abs(offset) < 2 ** 52, "offset", `${offset} is too large`);
  const [h, w] = [box[rows], box[columns]];
  const [H, W] = [Math.max(64, h), Math.max(64, w)];
  const n = product(box) / (h * w);
  r.limit(H * W <= 2 ** 22 && n * H * W <= 2 ** 28, "rows", `${n} frames of ${W} x ${H}`);
  let correction = null;
  if (flags) {
    r.limit(n * h * w <= 2 ** 26, "rows", `${n * h * w} corrected samples`);
    correction = readCorrection(r, 1);
  }
  const units = split(r, n, W, H);
  const samples = new Uint16Array(n * h * w);
  await decoder(units, W, H, (frame, luma, stride) => {
    if (frame >= n) throw failure(`more than ${n} frames`);
    for (let y = 0; y < h; y++) samples.set(luma.subarray(y * stride, y * stride + w), (frame * h + y) * w);
  }).then((frames) => r.check(frames === n, "stream", `${frames} frames can be decoded, not ${n}`));

  let y = samples;
  if (correction) [y] = correct(correction, [Float64Array.from(samples, (x) => 16 * x)], [n, h, w]);
  const table = Int32Array.from({ length: correction ? 16369 : 1024 }, (_, i) => {
    return Math.min(Math.max(Math.floor((gain * i + offset + 2 ** (shift - 1)) / 2 ** shift), low), high);
  });
  return scaled(type, arrange(y, table, box, rows, columns), e);
}

/** 15.1: frames are the positions of all other axes, in C order. */
function arrange(y, table, box, rows, columns) {
  const numbers = new Int32Array(y.length);
  const strides = box.map((_, a) => product(box.slice(a + 1)));
  const others = box.map((_, a) => a).filter((a) => a !== rows && a !== columns);
  const place = others.map(() => 0);
  for (let i = 0; i < y.length; ) {
    const first = others.reduce((sum, a, j) => sum + place[j] * strides[a], 0);
    for (let row = 0; row < box[rows]; row++) {
      for (let column = 0; column < box[columns]; column++) {
        const sample = Math.min(Math.max(y[i++], 0), table.length - 1);
        numbers[first + row * strides[rows] + column * strides[columns]] = table[sample];
      }
    }
    for (let j = others.length - 1; j >= 0 && ++place[j] === box[others[j]]; j--) place[j] = 0;
  }
  return numbers;
}

/** Fields of the AV1 syntax, the most significant bit first. */
class Syntax {
  constructor(r, bytes) {
    [this.r, this.bytes, this.at] = [r, bytes, 0];
  }

  take(count) {
    let value = 0;
    this.r.check(this.at + count <= 8 * this.bytes.length, "stream", "a unit ends within its header");
    for (const end = this.at + count; this.at < end; this.at++) {
      value = 2 * value + ((this.bytes[this.at >> 3] >> (7 - (this.at & 7))) & 1);
    }
    return value;
  }

  mustBe(value, count, name) {
    const found = this.take(count);
    this.r.check(found === value, "stream", `${name} is ${found}`);
  }
}

/** 15.2: check the stream; return its temporal units. */
function split(r, n, W, H) {
  const units = [];
  let [kinds, frames, sequence] = [0, 0, null];
  const parts = [];
  while (r.left) {
    const at = r.at;
    const head = new Syntax(r, r.take(1, "stream"));
    head.mustBe(0, 1, "obu_forbidden_bit");
    const kind = head.take(4);
    head.mustBe(0, 1, "obu_extension_flag");
    head.mustBe(1, 1, "obu_has_size_field");
    head.mustBe(0, 1, "obu_reserved_1bit");
    let size = 0;
    for (let i = 0, byte = 128; byte & 128; i++) {
      r.check(i < 4, "stream", "obu_size does not end");
      byte = r.u8("stream");
      size += (byte & 127) * 2 ** (7 * i);
    }
    const payload = r.take(size, "stream");
    parts.push(r.bytes.subarray(at, r.at));
    const bits = new Syntax(r, payload);
    if (kinds++ === 0) {
      r.check(kind === 1, "stream", `it begins with a unit of type ${kind}`);
      sequence = readSequence(bits, W, H);
      continue;
    }
    r.check(kind === 3 || kind === 6, "stream", `a unit of type ${kind}`);
    let shows = bits.take(1);
    r.check(shows === (kind === 3 ? 1 : 0), "stream", `show_existing_frame is ${shows} in a unit of type ${kind}`);
    if (kind === 6) shows = readFrame(r, bits, sequence, frames++ === 0);
    if (shows) units.push(join(parts.splice(0)));
    r.check(frames <= n && units.length <= n, "stream", `more than ${n} frames`);
  }
  r.check(units.length === n, "stream", `${units.length} frames, not ${n}`);
  r.check(parts.length === 0, "stream", "it does not end with a frame that is shown");
  return units;
}

function join(parts) {
  const out = new Uint8Array(parts.reduce((sum, p) => sum + p.length, DELIMITER.length));
  out.set(DELIMITER);
  let at = DELIMITER.length;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** A sequence header (AV1 5.5): seq_force_screen_content_tools and seq_force_integer_mv. */
function readSequence(bits, W, H) {
  bits.mustBe(0, 3, "seq_profile");
  bits.mustBe(0, 3, "still_picture, reduced_still_picture_header or timing_info_present_flag");
  const delays = bits.take(1);
  bits.mustBe(0, 5, "operating_points_cnt_minus_1");
  bits.mustBe(0, 12, "operating_point_idc");
  if (bits.take(5) > 7) bits.take(1); // seq_level_idx, seq_tier
  if (delays && bits.take(1)) {
    const delay = bits.take(4);
    bits.r.check(delay <= 9, "stream", `initial_display_delay_minus_1 is ${delay}`);
  }
  const [wide, tall] = [bits.take(4) + 1, bits.take(4) + 1];
  bits.mustBe(W - 1, wide, "max_frame_width_minus_1");
  bits.mustBe(H - 1, tall, "max_frame_height_minus_1");
  bits.mustBe(0, 1, "frame_id_numbers_present_flag");
  bits.take(7); // use_128x128_superblock to enable_dual_filter
  const hints = bits.take(1);
  if (hints) bits.take(2);
  const tools = bits.take(1) ? 2 : bits.take(1);
  const integer = tools === 0 || bits.take(1) ? 2 : bits.take(1);
  if (hints) bits.take(3);
  bits.mustBe(0, 1, "enable_superres");
  bits.take(2);
  bits.mustBe(1, 1, "high_bitdepth");
  const mono = bits.take(1);
  bits.mustBe(0, 1, "color_description_present_flag");
  bits.take(mono ? 1 : 4);
  bits.mustBe(0, 1, "film_grain_params_present");
  return { tools, integer };
}

/** A frame header (AV1 5.9.2) behind show_existing_frame: show_frame. */
function readFrame(r, bits, { tools, integer }, first) {
  const [kind, shown] = [bits.take(2), bits.take(1)];
  r.check(first ? kind === 0 : kind === 1 || kind === 2, "stream", `frame_type is ${kind}`);
  if (!shown) bits.take(1); // showable_frame
  if (kind || !shown) bits.take(1); // error_resilient_mode
  bits.take(1); // disable_cdf_update
  if ((tools === 2 ? bits.take(1) : tools) && integer === 2) bits.take(1);
  bits.mustBe(0, 1, "frame_size_override_flag");
  return shown;
}

const failure = (text) => new ChunkError("av1.stream", text);

/** Decode temporal units with the browser's decoder; `put(frame, luma, stride)` takes each. Returns their number. */
async function webCodecs(units, width, height, put) {
  const { VideoDecoder, EncodedVideoChunk } = globalThis;
  const unsupported = (text) => new ChunkError("mode", `av1: ${text}`, "UnsupportedVersionError");
  if (!VideoDecoder) throw unsupported("this platform has no WebCodecs; give decode() a decoder as `av1`");
  const config = { codec: "av01.0.12M.10", codedWidth: width, codedHeight: height,
                   hardwareAcceleration: "prefer-software" }; // prettier-ignore
  if (!(await VideoDecoder.isConfigSupported(config)).supported) throw unsupported("the browser has no decoder of AV1");
  let frames = 0;
  const copies = [];
  let failed;
  const decoder = new VideoDecoder({
    output: (frame) => copies.push(copyLuma(frame, frames++, width, height, put).catch((error) => (failed ??= error))),
    error: (error) => (failed ??= failure(`the browser's decoder: ${error.message}`)),
  });
  try {
    decoder.configure(config);
    for (let i = 0; i < units.length && !failed; i++) {
      decoder.decode(new EncodedVideoChunk({ type: i ? "delta" : "key", timestamp: i, data: units[i] }));
      if (decoder.decodeQueueSize > 16) await new Promise((resume) => setTimeout(resume));
    }
    if (!failed) await decoder.flush();
  } catch (error) {
    failed ??= failure(`the browser's decoder: ${error.message}`);
  } finally {
    if (decoder.state !== "closed") decoder.close();
  }
  await Promise.all(copies);
  if (failed) throw failed;
  return frames;
}

async function copyLuma(frame, number, width, height, put) {
  try {
    const { codedWidth, codedHeight, format } = frame;
    const right = codedWidth === width && codedHeight === height;
    if (!right) throw failure(`a frame of ${codedWidth} x ${codedHeight}`);
    if (!format?.endsWith("P10")) throw new ChunkError("mode", `av1: frames of ${format}`, "UnsupportedVersionError");
    const data = new Uint8Array(frame.allocationSize());
    const [{ offset, stride }] = await frame.copyTo(data);
    put(number, new Uint16Array(data.buffer, offset, (stride / 2) * height), stride / 2);
  } finally {
    frame.close();
  }
}
