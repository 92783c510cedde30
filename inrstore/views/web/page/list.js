// The images of an archive as a table.
import { brief, bytes, decibels, h } from "./dom.js";
import { getJson } from "./image.js";

const PAGE = 100;

/** What was promised, in words. */
export function quality(asked) {
  if (asked?.lossless) return "lossless";
  return Object.entries(asked ?? {}).map(([name, value]) => `${name.replace("_", " ")} ${brief(value)}`).join(", "); // prettier-ignore
}

/** Bytes of the voxels of an image, undefined if that is not known. */
export function voxelBytes(shape, dtype) {
  const size = /(\d+)$/.exec(dtype ?? "")?.[1] ?? (dtype === "bool" ? 8 : NaN);
  return shape && size > 0 ? (shape.reduce((a, b) => a * b, 1) * size) / 8 : undefined;
}

export function listOf(index) {
  const rows = h("tbody");
  const count = h("span", { class: "count" });
  const pages = h("span", { class: "pages" });
  let [offset, words, newest] = [0, "", 0];

  const show = async () => {
    const mine = ++newest;
    const query = new URLSearchParams({ offset, limit: PAGE, filter: words });
    let found;
    try {
      found = await getJson(`index.json?${query}`);
    } catch (error) {
      if (mine === newest) rows.replaceChildren(h("tr", {}, h("td", { colspan: 6, class: "problem", role: "alert" }, error.message)));
      return;
    }
    if (mine !== newest) return;
    const { total, images } = found;
    rows.replaceChildren(...images.map(row));
    count.textContent = `${total.toLocaleString("en")} image${total === 1 ? "" : "s"}`;
    const go = (to, text) => h("button", { type: "button", disabled: to < 0 || to >= total || to === offset,
                                           onclick: () => ((offset = to), show()) }, text); // prettier-ignore
    pages.replaceChildren(
      go(offset - PAGE, "←"), ` ${total ? offset + 1 : 0}–${Math.min(offset + PAGE, total)} `, go(offset + PAGE, "→")); // prettier-ignore
    if (!images.length) rows.replaceChildren(h("tr", {}, h("td", { colspan: 6 }, words ? "No image has this in its path." : "The archive has no images.")));
  };

  let waiting;
  const filter = h("input", { type: "search", placeholder: "Filter by path", "aria-label": "Filter by path",
    oninput: () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => (([words, offset] = [filter.value.trim(), 0]), show()), 200);
    } }); // prettier-ignore
  const heads = ["image", "shape", "type", "PSNR", "bytes", "ratio"];
  show();
  return h("section", { class: "list" },
    h("div", { class: "bar" }, h("h1", {}, index.name), filter, count, pages),
    h("table", {}, h("thead", {}, h("tr", {}, ...heads.map((text) => h("th", {}, text)))), rows)); // prettier-ignore
}

function row({ path, shape, dtype, lossless, psnr, stored_bytes: stored, source_bytes: source }) {
  const voxels = voxelBytes(shape, dtype) ?? source;
  return h("tr", {},
    h("td", {}, h("a", { href: `#${encodeURIComponent(path)}` }, path)),
    h("td", {}, [...(shape ?? [])].reverse().join(" × ")),
    h("td", {}, dtype ?? ""),
    h("td", {}, lossless ? "lossless" : decibels(psnr)),
    h("td", {}, bytes(stored)),
    h("td", {}, stored && voxels ? `${(voxels / stored).toFixed(1)} : 1` : "")); // prettier-ignore
}
