// An image, or several stores of one, in panels: original, decoded, error; what is common to them, and what is measured.
import { brief, bytes, decibels, h, rounded, words } from "./dom.js";
import { RemoteImage } from "./image.js";
import { quality, voxelBytes } from "./list.js";
import { compared, difference, quantiles, windowOf } from "./measure.js";
import { ERROR_COLOURS, Panel, checkDrawing } from "./panel.js";

const MOST_VALUES = 2 ** 28; // voxels in all panels together: each costs 4 bytes of the graphics memory
const AXES = ["axial", "coronal", "sagittal"];

export class Viewer {
  /**
   * @param {object} library the module of NiiVue
   * @param {object[]} said what image.json says of each store; all of one image
   * @param {boolean} side whether they are compared, side by side
   */
  constructor(library, said, side) {
    this.images = said.map((one) => new RemoteImage(one));
    [this.image] = this.images;
    this.hasOriginal = Boolean(said[0].has_source);
    this.side = side;
    this.number = 0;
    this.axis = 0;
    this.voxel = null;
    this.newest = 0;
    const panel = (title, colours) => {
      const made = new Panel(library, title, colours);
      made.moved = (place, from) => this.#moved(place, from);
      made.dragged = (from) => this.#follow(from);
      made.windowed = (window) => {
        this.autoWindow.checked = false;
        this.#setWindow(window);
      };
      return made;
    };
    this.original = this.hasOriginal ? panel("Original", "gray") : null;
    this.units = this.images.map((image) => ({
      image,
      decoded: panel(side ? image.said.name ?? image.said.path : "Decoded", "gray"),
      error: this.hasOriginal ? panel("Error", "error") : null,
      facts: h("dl", { class: "facts" }),
    }));
    this.panels = [this.original, ...this.units.flatMap(({ decoded, error }) => [decoded, error])].filter(Boolean);
    this.#build();
  }

  // ---- what is around the panels

  #build() {
    const number = (label, change) => h("input", { type: "number", step: "any", "aria-label": label, onchange: change });
    const { volumes } = this.image;
    this.slider = h("input", { type: "range", min: 0, max: volumes - 1, value: 0, "aria-label": "Volume",
                               oninput: () => this.show(+this.slider.value) }); // prettier-ignore
    this.sliderText = h("output");
    this.ends = [0, 1].map((i) => number(["Shown black", "Shown white"][i], () => {
      this.autoWindow.checked = false;
      this.#setWindow(this.ends.map((end) => +end.value));
    })); // prettier-ignore
    this.autoWindow = h("input", { type: "checkbox", checked: true, onchange: () => this.#automatic() });
    this.scale = number("Error shown in full colour", () => {
      this.autoScale.checked = false;
      this.#setScale(Math.abs(+this.scale.value) || 1);
    });
    this.autoScale = h("input", { type: "checkbox", checked: true, onchange: () => this.#automatic() });
    const names = this.image.z > 1 ? ["all", ...AXES] : ["axial"];
    this.planes = h("select", { "aria-label": "Planes", onchange: () => this.#setPlanes(this.planes.value) },
      ...names.map((name) => h("option", { value: name }, name === "all" ? "three planes" : name))); // prettier-ignore
    this.planes.value = this.side || names.length === 1 ? "axial" : "all";
    this.smooth = h("input", { type: "checkbox", onchange: () => this.#each((p) => p.smooth(this.smooth.checked)) });
    this.radiological = h("input", { type: "checkbox", checked: true,
      onchange: () => this.#each((p) => p.radiological(this.radiological.checked)) }); // prettier-ignore
    const group = (...parts) => h("div", { class: "group" }, ...parts);
    const label = (...parts) => h("label", {}, ...parts);
    this.controls = h("div", { class: "controls" },
      volumes > 1 ? group("Volume", this.slider, this.sliderText) : null,
      group("Window", this.ends[0], "to", this.ends[1], label(this.autoWindow, "auto")),
      this.hasOriginal ? group("Error ±", this.scale, label(this.autoScale, "auto"),
        this.side ? null : h("span", { class: "legend" }, "too low", colourBar(), "too high")) : null,
      group(this.planes, label(this.smooth, "interpolate"), label(this.radiological, "radiological"))); // prettier-ignore
    this.place = h("output", { class: "place" });
    const keys = h("span", { class: "keys", title: "Drag with the middle button, or with Shift, to move the planes" }, h("kbd", {}, "↑"), h("kbd", {}, "↓"), " slice  ",
      ...(volumes > 1 ? [h("kbd", {}, "←"), h("kbd", {}, "→"), " volume  "] : []),
      h("kbd", {}, "A"), h("kbd", {}, "C"), h("kbd", {}, "S"), h("kbd", {}, "M"), " planes  ", h("kbd", {}, "+"), h("kbd", {}, "−"), h("kbd", {}, "0"), " zoom  right drag: window"); // prettier-ignore
    const body = h("div", { class: `panels ${this.side ? "side" : ""}` });
    if (this.side) {
      this.common = h("dl", { class: "facts" });
      this.scaleEnds = h("div", { class: "ends" });
      const about = h("div", { class: "about" }, h("p", {}, "Errors: decoded − original, in the units of the image, " +
        "on one scale for all stores"), colourBar(), this.scaleEnds); // prettier-ignore
      const source = h("div", { class: "unit" }, this.original?.element, this.common, this.hasOriginal ? about : null);
      body.append(source, ...this.units.map(({ decoded, error, facts }) => h("div", { class: "unit" }, decoded.element, facts, error?.element)));
    } else body.append(...this.panels.map(({ element }) => element));
    this.body = body;
    this.element = h("section", { class: "viewer" }, this.side ? null : this.units[0].facts, this.controls, body,
      h("footer", {}, this.place, keys)); // prettier-ignore
    this.keys = (event) => this.#key(event);
    addEventListener("keydown", this.keys, true);
    this.sized = new ResizeObserver(() => this.#arrange());
    this.sized.observe(body);
  }

  /** As many columns as have room; rows of equal length otherwise. */
  #arrange() {
    const count = this.body.children.length;
    const room = Math.max(1, Math.floor(this.body.clientWidth / (this.side ? 180 : 260)));
    this.body.style.setProperty("--columns", Math.ceil(count / Math.ceil(count / room)));
  }

  #each(what) {
    for (const panel of this.panels) if (panel.viewer) what(panel);
  }

  #facts() {
    const { said } = this.image;
    const voxels = voxelBytes(this.image.shape, said.dtype);
    const spacing = (said.spacing ?? []).map((n) => +n.toPrecision(3)).join(" × ");
    const common = [
      ["shape", [...this.image.shape].reverse().join(" × ")],
      ["voxel", spacing && `${spacing} mm`],
      ["type", said.dtype],
      ["voxels", bytes(voxels)],
      ["source file", said.source_bytes ? bytes(said.source_bytes) : ""],
    ];
    if (this.side) fill(this.common, common);
    for (const { image, decoded, facts, measured } of this.units) {
      if (decoded.values) {
        decoded.note.textContent = image.elsewhere ? `by the server: ${image.elsewhere}` : "in this page";
        decoded.note.title = image.elsewhere || told(image.fetched);
      }
      const { stored_bytes: stored, psnr, quality: asked, lossless } = image.said;
      const of = (found) => (found === null ? "every voxel equal" : decibels(found));
      const own = [
        ["stored", bytes(stored)],
        ["ratio", `${(voxels / stored).toFixed(1)} : 1`],
        ["mode", [...image.modes].join(", ")],
        ["promised", quality(asked)],
        [this.image.volumes > 1 ? "PSNR of all" : "PSNR, measured", lossless ? of(null) : decibels(psnr)],
        [`${this.image.volumes > 1 ? "of this volume" : "PSNR, as shown"}${image.masked ? ", outside the mask too" : ""}`, measured ? of(measured.psnr) : ""],
        ["largest error", measured ? brief(measured.largest * Math.abs(image.slope)) : ""],
      ];
      fill(facts, this.side ? own : [...common, ...own]);
    }
  }

  // ---- volumes

  async start() {
    this.#facts();
    const { x, y, z, values } = this.image;
    const most = checkDrawing();
    const refuse = (text) => this.body.replaceChildren(h("p", { class: "problem", role: "alert" }, text));
    const others = "inrstore mount or export gives the image to other programs.";
    if (Math.max(x, y, z) > most) return refuse(`${x} × ${y} × ${z}: at most ${most} along an axis can be drawn; ${others}`);
    if (values * this.panels.length > MOST_VALUES) {
      return refuse(`${values.toLocaleString("en")} voxels in ${this.panels.length} panels are more than this page shows; ${others}`);
    }
    const look = { planes: this.planes.value, smooth: false, radiological: true };
    for (const panel of this.panels) {
      try {
        await panel.attach(look);
      } catch (error) {
        panel.say(words(error), true);
      }
    }
    this.image.bvalues().then((found) => ((this.bvalues = found), this.#place())).catch(() => {}); // prettier-ignore
    await this.show(0);
  }

  /** Show a volume; what was on the way is dropped. */
  async show(number) {
    const mine = ++this.newest;
    this.abort?.abort();
    this.abort = new AbortController();
    const { signal } = this.abort;
    this.number = number;
    this.element.dataset.state = "working";
    this.slider.value = number;
    this.#place();
    const current = () => mine === this.newest;
    const options = (panel) => ({ signal, progress: (text) => current() && (panel.values ? (panel.note.textContent = text) : panel.say(text)) }); // prettier-ignore
    const failed = (error, ...panels) => {
      if (!current() || error.name === "AbortError") return;
      for (const panel of panels) panel?.say(words(error), true);
    };
    const before = this.hasOriginal
      ? this.image.original(number, options(this.original)).then(async (values) => {
          if (current()) await this.#display(this.original, values, this.image, true);
          return values;
        })
      : Promise.resolve(null);
    before.catch((error) => failed(error, this.original));
    const differences = await Promise.all(this.units.map(async (unit) => {
      unit.measured = null;
      try {
        if (unit.image.shape.join() !== this.image.shape.join()) {
          throw new Error(`another shape than the first: ${[...unit.image.shape].reverse().join(" × ")}`);
        }
        const values = await unit.image.volume(number, options(unit.decoded));
        const original = await before.catch(() => null);
        if (!current()) return null;
        await this.#display(unit.decoded, values, unit.image, !original && unit === this.units[0]);
        if (!original) {
          if (unit.error) throw Object.assign(new Error("there is no original to compare with"), { only: true });
          return null;
        }
        unit.measured = compared(original, values);
        return [unit, difference(original, values, unit.image.slope)];
      } catch (error) {
        failed(error, ...(error.only ? [unit.error] : [unit.decoded, unit.error]));
        return null;
      }
    })); // prettier-ignore
    await before.catch(() => {});
    if (!current()) return;
    const found = differences.filter(Boolean);
    if (found.length) {
      const ends = found.map(([{ measured, image }, error]) =>
        quantiles(error, [0.995], Math.abs)[0] || measured.largest * Math.abs(image.slope)); // prettier-ignore
      this.found = rounded(Math.max(...ends));
      if (this.autoScale.checked) this.#setScale(this.found);
      const end = +this.scale.value || 1;
      for (const [unit, error] of found) {
        await unit.error.show(error, { ...this.image, affine: this.image.affine, slope: 1, inter: 0 }, [-end, end]);
        unit.error.note.textContent = "decoded − original";
      }
    }
    if (!current()) return;
    if (!this.voxel) this.#middle();
    this.#facts();
    this.#place();
    this.element.dataset.state = "ready";
  }

  async #display(panel, values, image, first) {
    if (first) {
      this.foundWindow = windowOf(values, image.slope, image.inter);
      if (this.autoWindow.checked) this.#setWindow(this.foundWindow);
    }
    panel.note.textContent = "";
    await panel.show(values, image, this.ends.map((end) => +end.value)); // prettier-ignore
  }

  #middle() {
    const from = this.panels.find(({ viewer }) => viewer?.volumes.length);
    from?.viewer.createOnLocationChange();
  }

  #setWindow([low, high]) {
    if (!(high > low)) return;
    this.ends[0].value = +low.toPrecision(5);
    this.ends[1].value = +high.toPrecision(5);
    this.#each((panel) => panel.colours === "gray" && panel.window([low, high]));
  }

  #setScale(end) {
    this.scale.value = end;
    this.scaleEnds?.replaceChildren(...[-end, 0, end].map((n) => h("span", {}, `${n > 0 ? "+" : ""}${brief(n)}`)));
    this.#each((panel) => panel.colours === "error" && panel.window([-end, end]));
  }

  #automatic() {
    if (this.autoWindow.checked && this.foundWindow) this.#setWindow(this.foundWindow);
    if (this.autoScale.checked && this.found) this.#setScale(this.found);
  }

  #setPlanes(name) {
    if (![...this.planes.options].some(({ value }) => value === name)) return;
    this.planes.value = name;
    this.#each((panel) => panel.planes(name));
    if (AXES.includes(name)) this.axis = AXES.indexOf(name);
  }

  // ---- place

  #moved({ mm, axCorSag }, from) {
    if (this.following || !mm) return;
    this.following = true;
    try {
      if (axCorSag >= 0 && axCorSag < 3) this.axis = axCorSag;
      this.#follow(from);
      this.mm = [...mm].slice(0, 3);
      this.voxel = voxelAt(this.image, this.mm);
      this.#place();
    } finally {
      this.following = false;
    }
  }

  #follow(from) {
    this.#each((panel) => panel !== from && panel.follow(from));
  }

  #place() {
    const { image, voxel } = this;
    this.sliderText.textContent = `${this.number} / ${image.volumes - 1}${this.bvalues ? `, b = ${brief(this.bvalues[this.number])}` : ""}`;
    if (!voxel) return;
    const inside = voxel.every((n, a) => n >= 0 && n < [image.x, image.y, image.z][a]);
    this.place.textContent = `voxel ${voxel.join(", ")}${image.volumes > 1 ? `, volume ${this.number}` : ""}    ` +
      `${this.mm.map((n) => n.toFixed(1)).join(", ")} mm`; // prettier-ignore
    const at = inside ? (voxel[2] * image.y + voxel[1]) * image.x + voxel[0] : -1;
    const write = (panel, slope, inter) => {
      if (!panel?.values) return;
      const stored = Number(panel.values[at]);
      const scaled = slope !== 1 || inter !== 0;
      panel.readout.textContent = at < 0 ? "" : scaled ? `${brief(stored * slope + inter)}  (stored ${brief(stored)})` : brief(stored);
    };
    write(this.original, image.slope, image.inter);
    for (const unit of this.units) {
      write(unit.decoded, unit.image.slope, unit.image.inter);
      write(unit.error, 1, 0);
    }
  }

  #key(event) {
    const { target, key, ctrlKey, metaKey, altKey } = event;
    const typing = target.matches?.("input:not([type=checkbox]):not([type=range]), select, textarea");
    if (typing || ctrlKey || metaKey || altKey) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
    const slice = { ArrowUp: 1, ArrowDown: -1 }[key];
    const zoom = { "+": 1.25, "=": 1.25, "-": 0.8, 0: 0 }[key];
    const first = this.panels.find(({ viewer }) => viewer?.volumes.length);
    const plane = { a: "axial", c: "coronal", s: "sagittal", m: "all" }[key.toLowerCase()];
    if (step && this.image.volumes > 1) {
      this.show(Math.min(Math.max(this.number + step, 0), this.image.volumes - 1));
    } else if (slice) {
      const move = [0, 0, 0];
      move[[2, 1, 0][this.axis]] = slice;
      first?.viewer.moveCrosshairInVox(...move);
    } else if (zoom !== undefined) {
      first?.zoom(zoom);
      if (first) this.#follow(first);
    } else if (plane) this.#setPlanes(plane);
    else return;
    event.preventDefault();
    event.stopImmediatePropagation();
  }

  close() {
    ++this.newest;
    this.abort?.abort();
    removeEventListener("keydown", this.keys, true);
    this.sized.disconnect();
    for (const panel of this.panels) panel.close();
  }
}

function told({ chunks, bytes: count, decoding }) {
  return `${chunks} chunk${chunks === 1 ? "" : "s"}, ${bytes(count)} fetched, ${(decoding / 1000).toFixed(1)} s of decoding`;
}

function fill(list, facts) {
  list.replaceChildren(...facts.filter(([, text]) => text).map(([name, text]) =>
    h("div", {}, h("dt", {}, name), h("dd", {}, text)))); // prettier-ignore
}

function colourBar() {
  const { R, G, B, I } = ERROR_COLOURS;
  const stops = I.map((at, i) => `rgb(${R[i]},${G[i]},${B[i]}) ${(100 * at) / 255}%`).join(", ");
  const bar = h("span", { class: "scale" });
  bar.style.backgroundImage = `linear-gradient(to right, ${stops})`;
  return bar;
}

/** The voxel at a place in millimetres. */
function voxelAt({ affine }, mm) {
  const [a, b, c] = affine.map((row) => row.slice(0, 3));
  const cross = (u, v) => [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
  const dot = (u, v) => u[0] * v[0] + u[1] * v[1] + u[2] * v[2];
  const columns = [0, 1, 2].map((i) => [a[i], b[i], c[i]]);
  const from = mm.map((n, i) => n - affine[i][3]);
  const whole = dot(columns[0], cross(columns[1], columns[2]));
  return [
    dot(from, cross(columns[1], columns[2])),
    dot(from, cross(columns[2], columns[0])),
    dot(from, cross(columns[0], columns[1])),
  ].map((n) => Math.round(n / whole));
}
