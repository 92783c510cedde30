// Workers that decode, few and made when they are needed.

/** Why a chunk was not decoded; `elsewhere` is true where nothing is wrong with it and the server can. */
export class DecodeError extends Error {
  constructor({ message, field, code }, where = "") {
    super(where ? `${where}: ${message}` : message);
    [this.name, this.field, this.code] = ["DecodeError", field, code];
  }

  get elsewhere() {
    return this.code === "UnsupportedVersionError" || this.code === "RangeError";
  }
}

const MOST = Math.max(1, Math.min(4, (navigator.hardwareConcurrency || 2) - 1));
const workers = []; // {worker, jobs: Map of number -> {resolve, reject}}
let next = 0;

/** Decode a chunk in a worker; the bytes are handed over. */
export function decodeChunk(job) {
  let chosen = workers.find(({ jobs }) => jobs.size === 0);
  if (!chosen && workers.length < MOST) chosen = begin();
  chosen ??= workers.reduce((a, b) => (b.jobs.size < a.jobs.size ? b : a));
  const id = next++;
  return new Promise((resolve, reject) => {
    chosen.jobs.set(id, { resolve, reject });
    chosen.worker.postMessage({ ...job, id }, [job.bytes.buffer]);
  });
}

export const parallel = MOST;

function begin() {
  const own = { worker: new Worker(new URL("./decoder.js", import.meta.url), { type: "module" }), jobs: new Map() };
  own.worker.addEventListener("message", ({ data: { id, values, mode, failure } }) => {
    const { resolve, reject } = own.jobs.get(id);
    own.jobs.delete(id);
    if (failure) reject(new DecodeError(failure));
    else resolve({ values, mode });
  });
  const lost = (event) => {
    workers.splice(workers.indexOf(own), 1);
    own.worker.terminate();
    const message = `the worker that decodes stopped: ${event.message || "its module cannot be loaded"}`;
    for (const { reject } of own.jobs.values()) reject(new DecodeError({ message, code: "RangeError" }));
  };
  own.worker.addEventListener("error", lost);
  own.worker.addEventListener("messageerror", lost);
  workers.push(own);
  return own;
}
