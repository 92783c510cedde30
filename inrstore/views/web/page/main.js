// What the address asks for: the list of an archive, an image of it, or several stores of one image side by side.
import { h, words } from "./dom.js";
import { getJson } from "./image.js";
import { listOf } from "./list.js";
import { Viewer } from "./viewer.js";

const main = document.getElementById("main");
const where = document.getElementById("where");
let viewer = null;
let newest = 0;

async function library() {
  try {
    return await import("../dist/niivue.js");
  } catch {
    throw new Error(
      "The viewer is not in this installation: its part that draws, NiiVue, is bundled when the package is built. " +
        "In a checkout, with npm: make web. All else works: mount, export, and the files under /nii/.",
    );
  }
}

async function show() {
  const mine = ++newest;
  viewer?.close();
  viewer = null;
  try {
    const index = await getJson("index.json?limit=8");
    if (mine !== newest) return;
    const asked = decodeURIComponent(location.hash.slice(1));
    const many = index.kind === "archive";
    where.replaceChildren(many ? h("a", { href: "#" }, index.name) : index.name, asked && many ? ` / ${asked}` : "");
    document.title = `${asked || index.name} – inrstore`;
    main.className = "";
    if (many && !asked) {
      main.replaceChildren(listOf(index));
      return;
    }
    const paths = asked ? [asked] : index.images.map(({ path }) => path);
    const images = await Promise.all(paths.map((path) => getJson(`image.json?${new URLSearchParams({ path })}`)));
    const drawn = await library();
    if (mine !== newest) return;
    viewer = new Viewer(drawn, images, index.kind === "compare");
    globalThis.viewer = viewer; // for the console, and for tests
    main.className = "full";
    main.replaceChildren(viewer.element);
    await viewer.start();
  } catch (error) {
    if (mine === newest) main.replaceChildren(h("p", { class: "problem", role: "alert" }, words(error)));
  }
}

addEventListener("hashchange", show);
addEventListener("unhandledrejection", ({ reason }) => console.error(reason));
show();
