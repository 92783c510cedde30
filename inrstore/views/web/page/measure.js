// Volumes -> what is shown of them: PSNR as the package measures it, windows, error maps.

/**
 * Return what differs between two volumes, in stored units.
 *
 * @returns {{psnr: number | null, rmse: number, largest: number}} psnr in dB, relative to the range of the original;
 *   null where every voxel is equal
 */
export function compared(original, decoded) {
  let [low, high, squares, count, largest] = [Infinity, -Infinity, 0, 0, 0];
  for (let i = 0; i < original.length; i++) {
    const a = Number(original[i]);
    if (!Number.isFinite(a)) continue;
    if (a < low) low = a;
    if (a > high) high = a;
    count++;
    let error = Math.abs(Number(decoded[i]) - a);
    if (!(error < Infinity)) error = Infinity;
    if (error > largest) largest = error;
    squares += error * error;
  }
  const mean = squares / Math.max(1, count);
  const range = high > low ? high - low : 1;
  return { psnr: mean ? 10 * Math.log10((range * range) / mean) : null, rmse: Math.sqrt(mean), largest };
}

/** Decoded minus original, in real units, as float32; where both are the same non-number it is 0. */
export function difference(original, decoded, slope) {
  const out = new Float32Array(original.length);
  for (let i = 0; i < out.length; i++) {
    const [a, b] = [Number(original[i]), Number(decoded[i])];
    out[i] = a === b || (a !== a && b !== b) ? 0 : (b - a) * slope;
  }
  return out;
}

/** Where parts of the values lie, from a sample of at most 2^16 of them: `quantiles(values, [0.01, 0.99])`. */
export function quantiles(values, parts, of = Number) {
  const step = Math.max(1, Math.floor(values.length / 2 ** 16)) | 1; // odd, so that columns do not repeat
  const found = new Float64Array(Math.ceil(values.length / step));
  let n = 0;
  for (let i = 0; i < values.length; i += step) {
    const value = of(values[i]);
    if (Number.isFinite(value)) found[n++] = value;
  }
  const sorted = found.subarray(0, n).sort();
  return parts.map((part) => (n ? sorted[Math.min(n - 1, Math.round(part * (n - 1)))] : 0));
}

/** A window that shows what is not air: from the smallest value to nearly the largest of what is above it. */
export function windowOf(values, slope, inter) {
  const [low] = quantiles(values, [0.005]);
  const [high] = quantiles(values, [0.995], (v) => (Number(v) > low ? Number(v) : NaN));
  const ends = [low * slope + inter, (high > low ? high : low + 1) * slope + inter];
  return ends.sort((a, b) => a - b);
}
