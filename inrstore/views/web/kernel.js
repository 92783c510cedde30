// Made by tools/web_kernel.py: W x of 16-bit integers as WebAssembly with SIMD, or null where there is none.
const CODE = "AGFzbQEAAAABCwFgB39/f39/f38AAggBAWUBbQIAAQMCAQAHBQEBbQAACtkCAdYCAgV/B3sDQEEAIQcDQP0MAAAAAAAAAAAAAAAAAAAAACEM/QwAAAAAAAAAAAAAAAAAAAAAIQ39DAAAAAAAAAAAAAAAAAAAAAAhDv0MAAAAAAAAAAAAAAAAAAAAACEPIAEgB2ohCyAAIQkgBCEIIAAgBEECdGohCgNAIAv9AAAAIREgC/0AABAhEiAJ/QkCACEQIAwgESAQ/boB/a4BIQwgDSASIBD9ugH9rgEhDSAK/QkCACEQIA4gESAQ/boB/a4BIQ4gDyASIBD9ugH9rgEhDyALIAVqIQsgCUEEaiEJIApBBGohCiAIQX9qIQggCA0ACyACIAdqIAz9CwAAIAIgB2ogDf0LABAgAiAHaiAFaiAO/QsAACACIAdqIAVqIA/9CwAQIAdBIGohByAHIAZJDQALIAAgBEECdEEBdGohACACIAVBAXRqIQIgA0F+aiEDIAMNAAsL";

let compiled = null;
try {
  compiled = new WebAssembly.Module(Uint8Array.from(atob(CODE), (c) => c.charCodeAt(0)));
} catch {
  // no WebAssembly, no SIMD in it, or a page that forbids it
}
export const module = compiled;
