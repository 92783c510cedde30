// node node.js MODULE FUNCTION < argument as JSON: prints what the function gives, as JSON.
import { readFileSync } from "node:fs";

const [path, name] = process.argv.slice(2);
const module = await import(path);
process.stdout.write(JSON.stringify(await module[name](JSON.parse(readFileSync(0, "utf8")))));
