// Decodes all vectors of a bundle: [{name, data (base64), and the fields of its entry in the index}]. Runs in Node and in
// pages; returns {passed, failures, unsupported}.
import { ChunkError, decode, describe } from "../../inrstore/views/web/inrstore.js";
import { sha256 } from "../../inrstore/views/web/bytes.js";

const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const hex = (bytes) => Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");

export async function runVectors(bundle) {
  const out = { passed: 0, failures: [], unsupported: [] };
  for (const entry of bundle) {
    const data = bytesOf(entry.data);
    const expected = { shape: entry.shape, dtype: entry.dtype, shared: entry.shared?.map(bytesOf) };
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
        if (error.code === "UnsupportedVersionError" && error.message.startsWith("mode: av1")) {
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
