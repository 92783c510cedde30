// The codec of Zarr version 3 for zarrita (npm).
import { decode } from "./inrstore.js";

/**
 * Make zarrita read arrays whose codec is `inrstore`.
 *
 * @param {object} zarrita the module: `register(await import("zarrita"))`
 */
export function register({ registry, BoolArray }) {
  const wrap = (dtype, values) => {
    if (dtype === "bool") return new BoolArray(values.buffer);
    if (dtype === "float16" && values.BYTES_PER_ELEMENT !== 2) throw new Error("this platform has no Float16Array");
    return values;
  };
  registry.set("inrstore", () => ({ fromConfig: (configuration, meta) => codec(configuration ?? {}, meta, wrap) }));
}

function codec({ shared = [] }, { shape, dataType }, wrap) {
  const parameters = shared.map((text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)));
  const stride = shape.map((_, a) => shape.slice(a + 1).reduce((x, y) => x * y, 1));
  return {
    kind: "array_to_bytes",
    encode() {
      throw new Error("inrstore: chunks are made by the Python package");
    },
    async decode(bytes) {
      const { values } = await decode(bytes, { shape, dtype: dataType, shared: parameters });
      return { data: wrap(dataType, values), shape, stride };
    },
  };
}
