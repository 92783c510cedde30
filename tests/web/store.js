// Opens arrays of a store, a folder or one file, with zarrita and inrstore's codec; each as {shape, data (base64)}.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { register } from "../../inrstore/views/web/zarrita.js";

export async function readStore({ zarrita, store, arrays }) {
  const zarr = await import(pathToFileURL(zarrita).href);
  register(zarr);
  return values(zarr, store.endsWith(".ozx") ? await zipped(zarrita, store) : {
    get: (key) => readFile(join(store, key)).then((bytes) => new Uint8Array(bytes), () => undefined),
  }, arrays); // prettier-ignore
}

/** The same of a store at an address, without the codec if it is plain; one that is a zip by parts of it. */
export async function readUrl({ zarrita, url, plain, zipped, arrays }) {
  const zarr = await import(pathToFileURL(zarrita).href);
  if (!plain) register(zarr);
  const files = zipped ? (await zipStore(zarrita)).fromUrl(url) : new zarr.FetchStore(url);
  return values(zarr, files, arrays);
}

async function values(zarr, files, arrays) {
  const out = {};
  for (const name of arrays) {
    const array = await zarr.open(zarr.root(files).resolve(name), { kind: "array" });
    const { data, shape } = await zarr.get(array);
    out[name] = { shape, data: Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("base64") };
  }
  return out;
}

async function zipped(zarrita, path) {
  return (await zipStore(zarrita)).fromBlob(new Blob([await readFile(path)]));
}

async function zipStore(zarrita) {
  const storage = new URL("../../../@zarrita/storage/dist/src/zip.js", pathToFileURL(zarrita));
  return (await import(storage.href)).default;
}
