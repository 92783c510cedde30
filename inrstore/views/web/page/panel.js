// A volume in three planes: a canvas of NiiVue, and what is written around it.
import { h } from "./dom.js";

const PLANES = { all: "MULTIPLANAR", axial: "AXIAL", coronal: "CORONAL", sagittal: "SAGITTAL" };
/** Colours of errors: too low, none, too high. Blue and orange differ for every kind of eye. */
export const ERROR_COLOURS = { R: [120, 20, 0, 190, 255], G: [205, 90, 0, 80, 190], B: [255, 200, 0, 10, 110],
                               A: [255, 255, 255, 255, 255], I: [0, 64, 128, 192, 255] }; // prettier-ignore
const TYPES = new Map([[Uint8Array, 2], [Int16Array, 4], [Uint16Array, 512], [Float32Array, 16]]); // prettier-ignore

export class Panel {
  /**
   * @param {object} library the module of NiiVue
   * @param {string} title
   * @param {string} colours "gray" or "error"
   */
  constructor(library, title, colours) {
    [this.library, this.colours, this.values] = [library, colours, null];
    this.canvas = h("canvas", { "aria-label": title });
    this.message = h("div", { class: "message" });
    this.note = h("span", { class: "note" });
    this.readout = h("output");
    this.element = h("figure", { class: `panel ${colours}` },
      h("figcaption", {}, h("b", {}, title), this.note),
      h("div", { class: "picture" }, this.canvas, this.message),
      this.readout); // prettier-ignore
    this.moved = () => {};
    this.dragged = () => {};
    this.windowed = () => {};
  }

  /** Make the canvas draw; the element has to be in the page. */
  async attach({ planes, smooth, radiological }) {
    const { Niivue, SLICE_TYPE, SHOW_RENDER, DRAG_MODE } = this.library;
    this.viewer = new Niivue({
      logLevel: "error",
      loadingText: "",
      backColor: [0, 0, 0, 1],
      crosshairColor: [0.35, 0.85, 0.45, 0.9],
      crosshairWidthUnit: "mm",
      crosshairGap: 8,
      fontColor: [0.75, 0.75, 0.75, 1],
      fontMinPx: 12,
      showAllOrientationMarkers: true,
      sliceType: SLICE_TYPE[PLANES[planes]],
      multiplanarShowRender: SHOW_RENDER.NEVER,
      multiplanarPadPixels: 4,
      isRadiologicalConvention: radiological,
      isNearestInterpolation: !smooth,
      isForceMouseClickToVoxelCenters: true,
      dragAndDropEnabled: false,
      trustCalMinMax: true,
      mouseEventConfig: {
        leftButton: { primary: DRAG_MODE.crosshair, withShift: DRAG_MODE.pan },
        rightButton: this.colours === "gray" ? DRAG_MODE.windowing : DRAG_MODE.none,
        centerButton: DRAG_MODE.pan,
      },
    });
    this.viewer.onLocationChange = (place) => this.moved(place, this);
    this.viewer.onIntensityChange = (volume) => this.windowed([volume.cal_min, volume.cal_max], this);
    await this.viewer.attachToCanvas(this.canvas, false);
    this.canvas.addEventListener("mousemove", ({ buttons }) => buttons && this.dragged(this)); // behind NiiVue's own
    if (this.colours === "error") this.viewer.addColormap("inrstore-error", ERROR_COLOURS);
  }

  /**
   * Show a volume.
   *
   * @param {TypedArray} values x fastest
   * @param {object} image where they are: x, y, z, affine, slope, inter
   * @param {number[]} window the smallest and the largest value shown, in real units
   */
  async show(values, { x, y, z, affine, slope, inter }, window) {
    this.say("");
    this.values = values;
    const Store = TYPES.has(values.constructor) ? values.constructor : Float32Array;
    const shown = Store === values.constructor ? values : Float32Array.from(values, Number);
    const [before] = this.viewer.volumes;
    if (before && this.shape === [x, y, z].join() && before.img.constructor === Store) {
      before.img.set(shown);
      [before.cal_min, before.cal_max] = window;
      this.viewer.updateGLVolume();
      return;
    }
    const lengths = [x, y, z].map((n, i) => n * Math.hypot(...[0, 1, 2].map((row) => affine[row][i])));
    this.viewer.opts.crosshairWidth = Math.max(...lengths) / 240; // about one pixel, and never none
    const file = nifti(shown, TYPES.get(Store), [x, y, z], affine, slope, inter);
    const name = this.colours === "error" ? "inrstore-error" : "gray";
    const volume = await this.library.NVImage.new(file, "volume.nii", name, 1, null, ...window);
    if (before) this.viewer.removeVolume(before);
    this.viewer.addVolume(volume);
    this.shape = [x, y, z].join();
    this.window(window);
  }

  /** Show other values in full black and white. */
  window([low, high]) {
    const [volume] = this.viewer?.volumes ?? [];
    if (!volume || (volume.cal_min === low && volume.cal_max === high)) return;
    [volume.cal_min, volume.cal_max] = [low, high];
    this.viewer.updateGLVolume();
  }

  planes(name) {
    this.viewer?.setSliceType(this.library.SLICE_TYPE[PLANES[name]]);
  }

  smooth(wanted) {
    this.viewer?.setInterpolation(!wanted);
  }

  radiological(wanted) {
    this.viewer?.setRadiologicalConvention(wanted);
  }

  /** Magnify the planes around the cross-hair; 0 shows all of them again. */
  zoom(factor) {
    const { scene } = this.viewer;
    const [x, y, z, before] = scene.pan2Dxyzmm;
    const after = factor ? Math.min(Math.max(before * factor, 0.5), 20) : 1;
    const place = this.viewer.frac2mm(scene.crosshairPos);
    const moved = [x, y, z].map((n, i) => (factor ? n + (before - after) * place[i] : 0));
    this.viewer.setPan2Dxyzmm([...moved, after]);
  }

  /** Be where another panel is. */
  follow({ viewer: { scene } }) {
    if (!this.viewer?.volumes.length) return;
    this.viewer.scene.crosshairPos = scene.crosshairPos.slice();
    this.viewer.scene.pan2Dxyzmm = scene.pan2Dxyzmm.slice();
    this.viewer.drawScene();
  }

  /** Say something in place of the picture; "" shows the picture. */
  say(text, failed = false) {
    this.message.textContent = text;
    this.element.classList.toggle("waiting", Boolean(text) && !failed);
    this.element.classList.toggle("failed", failed);
    this.message.toggleAttribute("hidden", !text);
    if (failed) this.message.setAttribute("role", "alert");
    else this.message.removeAttribute("role");
    if (failed) [this.values, this.readout.textContent] = [null, ""];
  }

  /** Let go of the canvas: browsers have few of them. */
  close() {
    if (!this.viewer) return;
    this.viewer.cleanup();
    this.viewer.gl?.getExtension("WEBGL_lose_context")?.loseContext();
    this.viewer = null;
  }
}

/** Return the most voxels along an axis; refuse a browser without WebGL 2 in words. */
export function checkDrawing() {
  const probe = document.createElement("canvas").getContext("webgl2");
  if (!probe) throw new Error("This browser draws no WebGL 2, which the viewer needs; its settings or a newer one may.");
  const most = probe.getParameter(probe.MAX_3D_TEXTURE_SIZE);
  probe.getExtension("WEBGL_lose_context")?.loseContext(); // there are only sixteen
  return most;
}

/** A volume as the bytes of a NIfTI-1 file. */
function nifti(values, type, [x, y, z], affine, slope, inter) {
  const file = new ArrayBuffer(352 + values.byteLength);
  const header = new DataView(file);
  const size = (column) => Math.hypot(...[0, 1, 2].map((row) => affine[row][column])) || 1;
  header.setInt32(0, 348, true);
  [3, x, y, z, 1, 1, 1, 1].forEach((n, i) => header.setInt16(40 + 2 * i, n, true));
  header.setInt16(70, type, true);
  header.setInt16(72, 8 * values.BYTES_PER_ELEMENT, true);
  [1, size(0), size(1), size(2), 1, 1, 1, 1].forEach((n, i) => header.setFloat32(76 + 4 * i, n, true));
  header.setFloat32(108, 352, true);
  header.setFloat32(112, slope, true);
  header.setFloat32(116, inter, true);
  header.setUint8(123, 2); // millimetres
  header.setInt16(254, 1, true); // sform_code
  affine.slice(0, 3).flat().forEach((n, i) => header.setFloat32(280 + 4 * i, n, true)); // prettier-ignore
  header.setUint32(344, 0x6e2b3100, false); // n+1
  new Uint8Array(file, 352).set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  return file;
}
