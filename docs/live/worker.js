/** Runs the detector beside the page, so that the page stays responsive; see page.js for the messages. */

import "./files.js";
import { ActionUnitDetector } from "./geaau.js";

const files = self.FILES;

/** Load everything, and answer with the facts and what runs the network: "WebGPU" or "WebAssembly". */
async function load() {
  const hasGpu = Boolean(await navigator.gpu?.requestAdapter());
  const [script, program] = files.engines[!hasGpu ? "wasm" : "Suspending" in WebAssembly ? "jspi" : "asyncify"];
  const names = [script, program, "geaau.onnx", "yunet.onnx", "five_points.bin", "facts.json"];
  const total = names.reduce((sum, name) => sum + files.bytes[name], 0);
  let loaded = 0;
  const report = (bytes) => postMessage({ kind: "progress", loaded: (loaded += bytes), total });
  const [wasm, network, yunet, cascade, facts] = await Promise.all(names.slice(1).map((name) => download(name, report)));
  const ort = await import(`./${script}`);
  report(files.bytes[script]);
  Object.assign(ort.env.wasm, { wasmBinary: wasm.buffer, numThreads: 1 }); // more threads need headers of the server
  ort.env.logLevel = "error";
  // YuNet stays on the CPU: it is small, and every output comes back to be decoded.
  const parts = { yunet: await session(ort, yunet, "wasm"), cascade: new Float32Array(cascade.buffer) };
  const known = JSON.parse(new TextDecoder().decode(facts));
  for (const provider of hasGpu ? ["webgpu", "wasm"] : ["wasm"]) {
    try {
      parts.network = await session(ort, network, provider);
      detector = new ActionUnitDetector(ort, known, parts);
      await warmUp(known);
      return { facts: known, provider: provider === "webgpu" ? "WebGPU" : "WebAssembly" };
    } catch (error) {
      if (provider === "wasm") throw error; // a GPU that fails is left for the CPU
    }
  }
}

/** @returns {Promise<Uint8Array>} The content of a file, whose parts are reported as they come. */
async function download(name, report) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`the server answers ${answer.status} for ${name}`);
  const content = new Uint8Array(files.bytes[name]);
  let place = 0;
  for (const reader = answer.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    content.set(value, place);
    place += value.length;
    report(value.length);
  }
  if (place !== content.length) throw new Error(`${name} has ${place} instead of ${content.length} bytes`);
  return content;
}

const session = (ort, content, provider) =>
  ort.InferenceSession.create(content, { executionProviders: [provider], logSeverityLevel: 3 });

/** Run once, so that the first answer is not late, and so that a GPU that cannot do it shows now. */
async function warmUp({ size: [height, width] }) {
  const crop = { width, height, channels: 3, data: new Uint8Array(3 * width * height) };
  const [{ probabilities }] = await detector.analyze([{}], [crop]);
  if (!probabilities.every(Number.isFinite)) throw new Error("the network predicts NaN");
}

/** @type {ActionUnitDetector} */
let detector;
const ready = load();
ready.then(
  (message) => postMessage({ kind: "ready", ...message }),
  (error) => postMessage({ kind: "failed", message: error.message }),
);

let last = ready; // one picture after the other: ONNX Runtime takes no second call meanwhile
onmessage = ({ data: { id, image, near, isSearch } }) => {
  last = last
    .then(() => detector.detect(image, near, isSearch))
    .then(
      (result) => postMessage({ kind: "result", id, ...result }),
      (error) => postMessage({ kind: "error", id, message: error.message }),
    );
};
