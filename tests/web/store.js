// Opens arrays of a store, a folder or one file, with zarrita and inrstore's codec; each as {shape, data (base64)}.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { register } from "../../inrstore/views/web/zarrita.js";

export async function readStore({ zarrita, store, arrays }) {
  const zarr = await import(pathToFileURL(zarrita).href);
  register(zarr);
  const files = store.endsWith(".ozx") ? await zipped(zarrita, store) : {
    get: (key) => readFile(join(store, key)).then((bytes) => new Uint8Array(bytes), () => undefined),
  }; // prettier-ignore
  const out = {};
  for (const name of arrays) {
    const array = await zarr.open(zarr.root(files).resolve(name), { kind: "array" });
    const { data, shape } = await zarr.get(array);
    out[name] = { shape, data: Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("base64") };
  }
  return out;
}

async function zipped(zarrita, path) {
  const storage = new URL("../../../@zarrita/storage/dist/src/zip.js", pathToFileURL(zarrita));
  const { default: ZipFileStore } = await import(storage.href);
  return ZipFileStore.fromBlob(new Blob([await readFile(path)]));
}
