// Zlib streams (RFC 1950, 1951) of a known size. Own code, since the platform's DecompressionStream is asynchronous,
// does not bound its output, and differs between platforms in what it lets pass.

const LENGTHS = [[], []];
const DISTANCES = [[], []];
for (let i = 0, at = 3; i < 28; i++) {
  LENGTHS[0].push(at);
  LENGTHS[1].push(i < 8 ? 0 : (i - 4) >> 2);
  at += 2 ** LENGTHS[1][i];
}
LENGTHS[0].push(258);
LENGTHS[1].push(0);
for (let i = 0, at = 1; i < 30; i++) {
  DISTANCES[0].push(at);
  DISTANCES[1].push(i < 4 ? 0 : (i - 2) >> 1);
  at += 2 ** DISTANCES[1][i];
}
const ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/** A table of 16 length + ... by the next bits: symbol << 4 | length, 0 where there is none. */
function table(lengths) {
  const counts = new Uint16Array(16);
  for (const n of lengths) counts[n]++;
  counts[0] = 0;
  let most = 15;
  while (most > 1 && !counts[most]) most--;
  const next = new Uint16Array(17);
  let left = 1;
  for (let n = 1; n <= 15; n++) {
    left = 2 * left - counts[n];
    if (left < 0) throw new Error("a code has too many words");
    next[n + 1] = (next[n] + counts[n]) << 1;
  }
  const single = counts.reduce((a, b) => a + b) <= 1 && counts[1] <= 1 && most === 1;
  if (left > 0 && !single) throw new Error("a code has too few words");
  const out = new Uint16Array(1 << most);
  lengths.forEach((n, symbol) => {
    if (!n) return;
    let reversed = 0;
    for (let i = 0, code = next[n]++; i < n; i++) reversed |= ((code >> i) & 1) << (n - 1 - i);
    for (let i = reversed; i < out.length; i += 1 << n) out[i] = (symbol << 4) | n;
  });
  return { out, mask: out.length - 1 };
}

let fixed;
function fixedTables() {
  const lengths = Array.from({ length: 288 }, (_, i) => (i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8));
  fixed ??= [table(lengths), table(new Array(32).fill(5))];
  return fixed;
}

/** Inflate a stream that fills `input` and gives exactly `size` bytes; throw an Error otherwise. */
export function inflate(input, size) {
  const fail = (text) => {
    throw new Error(text);
  };
  if (input.length < 6) fail("it is too short");
  const [cmf, flags] = input;
  if ((cmf & 15) !== 8 || cmf >> 4 > 7 || (cmf * 256 + flags) % 31 || flags & 32) fail("it is no zlib stream");
  const end = input.length - 4;
  const out = new Uint8Array(size);
  let [at, held, bits, filled] = [2, 0, 0, 0];
  const need = (n) => {
    while (bits < n) {
      if (at >= end) fail("it is cut short");
      held |= input[at++] << bits;
      bits += 8;
    }
  };
  const take = (n) => {
    need(n);
    const value = held & ((1 << n) - 1);
    held >>>= n;
    bits -= n;
    return value;
  };
  const decode = ({ out: entries, mask }) => {
    while (bits < 15 && at < end) {
      held |= input[at++] << bits;
      bits += 8;
    }
    const entry = entries[held & mask];
    const n = entry & 15;
    if (!n || n > bits) fail("a code is not valid");
    held >>>= n;
    bits -= n;
    return entry >> 4;
  };
  for (let last = 0; !last; ) {
    last = take(1);
    const kind = take(2);
    if (kind === 0) {
      take(bits & 7);
      const n = take(16);
      if ((n ^ take(16)) !== 0xffff) fail("a stored length is wrong");
      at -= bits >> 3; // whole bytes that were taken ahead
      [held, bits] = [0, 0];
      if (n > end - at) fail("it is cut short");
      if (n > size - filled) fail("it gives too many bytes");
      out.set(input.subarray(at, at + n), filled);
      at += n;
      filled += n;
      continue;
    }
    if (kind === 3) fail("a block is of a reserved kind");
    const [symbols, distances] = kind === 1 ? fixedTables() : dynamicTables(take, decode, fail);
    for (;;) {
      const symbol = decode(symbols);
      if (symbol < 256) {
        if (filled >= size) fail("it gives too many bytes");
        out[filled++] = symbol;
        continue;
      }
      if (symbol === 256) break;
      if (symbol > 285) fail("a length is not valid");
      const length = LENGTHS[0][symbol - 257] + take(LENGTHS[1][symbol - 257]);
      const code = decode(distances);
      if (code > 29) fail("a distance is not valid");
      const distance = DISTANCES[0][code] + take(DISTANCES[1][code]);
      if (distance > filled) fail("a distance is too far");
      if (length > size - filled) fail("it gives too many bytes");
      for (const stop = filled + length; filled < stop; filled++) out[filled] = out[filled - distance];
    }
  }
  if (at - (bits >> 3) !== end) fail("bytes are left over");
  if (filled !== size) fail(`it gives ${filled} bytes, not ${size}`);
  let [a, b] = [1, 0];
  for (let i = 0; i < size; ) {
    for (const stop = Math.min(i + 3800, size); i < stop; i++) b += a += out[i];
    a %= 65521;
    b %= 65521;
  }
  const found = new DataView(input.buffer, input.byteOffset + end, 4).getUint32(0);
  if (found !== b * 65536 + a) fail("its check value is wrong");
  return out;
}

function dynamicTables(take, decode, fail) {
  const [symbols, distances, codes] = [take(5) + 257, take(5) + 1, take(4) + 4];
  if (symbols > 286 || distances > 30) fail("a code has too many symbols");
  const lengths = new Array(19).fill(0);
  for (let i = 0; i < codes; i++) lengths[ORDER[i]] = take(3);
  const code = table(lengths);
  const all = [];
  while (all.length < symbols + distances) {
    const symbol = decode(code);
    if (symbol < 16) all.push(symbol);
    else {
      if (symbol === 16 && !all.length) fail("a length repeats nothing");
      const value = symbol === 16 ? all[all.length - 1] : 0;
      let count = symbol === 16 ? 3 + take(2) : symbol === 17 ? 3 + take(3) : 11 + take(7);
      while (count--) all.push(value);
    }
  }
  if (all.length > symbols + distances) fail("a length repeats too often");
  if (!all[256]) fail("a code has no end");
  return [table(all.slice(0, symbols)), table(all.slice(symbols))];
}
