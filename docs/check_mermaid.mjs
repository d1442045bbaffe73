// Has Mermaid itself read diagrams: node docs/check_mermaid.mjs FILE.mmd ...
//
// Needs Node 20 or newer and, in this folder or one above it: npm install mermaid@11 jsdom
// Exit status 1 and one line for each file that Mermaid refuses.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// MERMAID_MODULES names the folder that holds node_modules, where that is not above this file.
const require = createRequire(`${process.env.MERMAID_MODULES ?? import.meta.dirname}/`);
const { JSDOM } = require("jsdom");
const window = new JSDOM("").window;
globalThis.window = window;
globalThis.document = window.document;
const { default: mermaid } = await import(
  pathToFileURL(require.resolve("mermaid").replace(/mermaid\.[^/]*$/, "mermaid.core.mjs"))
);

let refused = 0;
for (const file of process.argv.slice(2)) {
  try {
    const { diagramType } = await mermaid.parse(readFileSync(file, "utf8"));
    console.log(`${file}: ${diagramType}`);
  } catch (error) {
    refused += 1;
    console.log(`${file}: refused: ${error.message.split("\n").join(" | ")}`);
  }
}
process.exit(refused ? 1 : 0);
