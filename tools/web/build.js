// NiiVue and what it needs -> one module, inrstore/views/web/dist/niivue.js, and the licences of all that is in it.
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const HERE = dirname(fileURLToPath(import.meta.url));
const OUT = join(HERE, "../../inrstore/views/web/dist");
const NO_FILE = { "@niivue/niivue": join(HERE, "niivue-license.txt") }; // its package brings none

const made = await build({
  absWorkingDir: HERE,
  entryPoints: ["niivue.js"],
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  alias: { zarrita: "./absent.cjs" },
  banner: { js: "/*! NiiVue, BSD-2-Clause, and others: see licenses.txt */" },
  legalComments: "inline",
  metafile: true,
  write: false,
});

const packages = new Set();
for (const path of Object.keys(made.metafile.inputs)) {
  const found = /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path);
  if (found) packages.add(found[1]);
}
const licenses = [...packages].sort().map((name) => {
  const folder = join(HERE, "node_modules", name);
  const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
  const path = file ? join(folder, file) : NO_FILE[name];
  const text = path && existsSync(path) ? readFileSync(path, "utf8").trim() : "";
  if (!text && !license) throw new Error(`${name}: no licence is known`);
  return `${name} ${version} (${license})\n\n${text}\n`;
});

mkdirSync(OUT, { recursive: true });
writeFileSync(join(OUT, "licenses.txt"), licenses.join(`\n${"-".repeat(80)}\n\n`));
const bundle = made.outputFiles[0].contents;
writeFileSync(join(OUT, "niivue.js.partial"), bundle);
renameSync(join(OUT, "niivue.js.partial"), join(OUT, "niivue.js")); // whole, or not there
console.log(`viewer: ${(bundle.length / 1e3).toFixed(0)} kB of ${packages.size} packages`);
