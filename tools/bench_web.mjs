// node bench_web.mjs DECODER FOLDER RUNS: milliseconds of the quickest decoding of each .chunk of a folder, as JSON.
import { readFileSync, readdirSync } from "node:fs";
import { basename, join } from "node:path";

const [decoder, folder, runs] = process.argv.slice(2);
const { decodeSync } = await import(decoder);
const out = {};
for (const file of readdirSync(folder).filter((name) => name.endsWith(".chunk"))) {
  const data = new Uint8Array(readFileSync(join(folder, file)));
  let best = Infinity;
  for (let i = 0; i < Number(runs); i++) {
    const begin = process.cpuUsage();
    decodeSync(data);
    best = Math.min(best, process.cpuUsage(begin).user / 1000);
  }
  out[basename(file, ".chunk")] = best;
}
process.stdout.write(JSON.stringify(out));
