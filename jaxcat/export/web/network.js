// The network: the file model.onnx, run by ONNX Runtime Web in this page, on one core.

import {InferenceSession, Tensor, env} from "./ort.wasm.bundle.min.mjs";
import {asset} from "./assets.js";

// Returns a function: levels of a square image of 3 channels → probabilities, float32, in the order of the classes.
export async function opened(size) {
    const [runtime, model] = await Promise.all([asset("ort-wasm-simd-threaded.wasm"), asset("model.onnx")]);
    env.logLevel = "error";
    env.wasm.numThreads = 1; // more need headers that a file and most servers do not send
    env.wasm.wasmBinary = runtime;
    const session = await InferenceSession.create(model, {executionProviders: ["wasm"], logSeverityLevel: 3});
    return async (levels) => {
        const pixels = new Tensor("uint8", new Uint8Array(levels.buffer), [1, size, size, 3]);
        const {probabilities} = await session.run({image: pixels}, ["probabilities"]);
        return probabilities.data;
    };
}
