// A worker: chunks of inrstore -> values.
import { decode } from "../inrstore.js";

addEventListener("message", async ({ data: { id, bytes, shape, dtype, shared } }) => {
  try {
    const { values, mode } = await decode(bytes, { shape, dtype, shared });
    postMessage({ id, values, mode }, [values.buffer]);
  } catch (error) {
    const { message, field, code } = error;
    postMessage({ id, failure: { message: message || String(error), field, code: code ?? error.name } });
  }
});
