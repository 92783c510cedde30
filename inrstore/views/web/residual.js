// Sections 12.7 and 12.8: tables of differences by context and phase, and the streams they are coded in.
import { Bits } from "./bytes.js";
import { Stream, lookup } from "./rans.js";

/** The tables; `at(context, phase)` makes one when it is first used. */
export class Tables {
  constructor(r) {
    this.r = r;
    this.scope = r.scope;
    this.forms = [];
    this.made = [];
    for (let c = 0; c < 64; c++) {
      const form = r.u8("form");
      r.check(form === 255 || form >> 5 <= 4, "form", `${form} is reserved`);
      if (form === 255) {
        this.forms.push(null);
        continue;
      }
      const [scale, peak, escape] = [r.u16("scale"), r.u16("peak"), r.u16("escape")];
      const shift = form & 15;
      r.check(scale >= 1, "scale", "it is 0");
      r.limit(peak >= 1 && peak <= 500 && peak * 2 ** shift <= 65535, "peak", `${peak} with a shift of ${shift}`);
      r.limit(escape >= 1 && escape <= 2000, "escape", `${escape} is not in 1..2000`);
      this.forms.push({ shift, phased: (form & 16) !== 0, tail: form >> 5, scale, peak, escape });
    }
  }

  at(context, phase) {
    const i = 4 * context + phase;
    return (this.made[i] ??= this.#make(context, phase));
  }

  #make(context, phase) {
    const form = this.forms[context];
    this.r.scope = this.scope;
    this.r.check(form, "form", `context ${context} has no table`);
    const { scale, peak, escape, phased, tail, shift } = form;
    if (!phased && phase) return this.at(context, 0);
    const n = 2 ** (tail + 1) - 1;
    const q = Math.max(1, Math.floor(((phased ? 576 : 1) * n * scale * scale) / 4096));
    const weight = (x) => {
      let w = 2 ** 24 - Math.ceil((2 ** 24 * x * x) / (q + x * x));
      for (let i = 0; i < tail; i++) w = Math.floor((w * w) / 2 ** 24);
      return w;
    };
    const weights = [];
    for (let k = -peak; k <= peak; k++) {
      const first = 24 * k - 6 * phase;
      weights.push(phased ? weight(first + 1) + weight(first + 9) + weight(first + 17) : weight(k));
    }
    const sum = Math.max(1, weights.reduce((a, b) => a + b));
    const spare = 16384 - (2 * peak + 1) - escape;
    const counts = weights.map((w) => 1 + Math.floor((w * spare) / sum));
    counts[peak] += 16384 - escape - counts.reduce((a, b) => a + b);
    return { ...lookup([...counts, escape]), peak, shift };
  }
}

/** The streams of differences, and of flags if there are any. */
export class Residuals {
  constructor(r, values, low, high, zeros) {
    const bits = r.u8("lanes");
    r.limit(bits <= 12 && values <= 2 ** (15 + bits), "lanes", `2^${bits} for ${values} values`);
    this.flagCounts = zeros ? r.many("u16", 32, "flag_counts") : [];
    r.check(this.flagCounts.every((f) => f >= 1 && f <= 16383), "flag_counts", "one is not in 1..16383");
    const count = r.choice("u32", "escapes", values);
    const escapes = r.take(2 * count, "escapes").slice();
    this.escapes = new Uint16Array(escapes.buffer);
    r.check(this.escapes.every((e) => low + e <= high), "escapes", `one is above ${high}`);
    this.bits = new Bits(r.prefixed("low_bits"), () => this.#fail("low_bits", "bits are missing"));
    const { scope } = r;
    const stream = (bytes, name) => new Stream(bytes, 2 ** bits, `${scope}.${name}.states`, `${scope}.${name}.words`);
    this.flags = zeros ? stream(r.prefixed("flag_stream"), "flag_stream") : null;
    this.symbols = stream(r.rest(), "symbols");
    Object.assign(this, { r, scope, low, high, escaped: 0 });
  }

  #fail(field, text) {
    this.r.scope = this.scope;
    this.r.fail(field, text);
  }

  flag(u) {
    // the number of j in -15..15 with 154 j < u
    return this.flags.flag(this.flagCounts[Math.min(Math.max(Math.ceil(u / 154) + 15, 0), 31)]);
  }

  zero() {
    this.#fail("flag_stream", "a value of 0 has the flag 1");
  }

  /** 12.6, point 8. */
  value(table, prediction) {
    const s = this.symbols.symbol(table);
    if (s > 2 * table.peak) {
      if (this.escaped >= this.escapes.length) this.#fail("escapes", "they are too few");
      return this.low + this.escapes[this.escaped++];
    }
    const w = table.shift;
    const v = prediction + (s - table.peak) * (1 << w) + (w ? this.bits.take(w) - (1 << (w - 1)) : 0);
    return Math.min(Math.max(v, this.low), this.high);
  }

  finish() {
    if (this.escaped !== this.escapes.length) this.#fail("escapes", "some are left over");
    this.flags?.finish();
    this.symbols.finish();
    if (!this.bits.clean()) this.#fail("low_bits", "bits are left over");
  }
}
