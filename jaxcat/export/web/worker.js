// The network in a thread of its own: takes {number, runtime, model, size, optimized} once, then {number, levels};
// answers {number, probabilities} or {number, problem}. It is started from the text of this file and ONNX Runtime Web
// together, so that the content security policy of the page holds here too.

import {InferenceSession, Tensor, env} from "./ort.wasm.bundle.min.mjs";

let session, size;

async function probabilitiesOf(levels) {
    const pixels = new Tensor("uint8", new Uint8Array(levels.buffer), [1, size, size, 3]);
    return (await session.run({image: pixels}, ["probabilities"])).probabilities.data;
}

// What is not optimized starts in a third of the time, and takes a twelfth longer for each image.
async function start({runtime, model, optimized, ...others}) {
    size = others.size;
    env.logLevel = "error";
    env.wasm.numThreads = 1; // more need headers that a file and most servers do not send
    env.wasm.wasmBinary = runtime;
    session = await InferenceSession.create(model, {
        executionProviders: ["wasm"], logSeverityLevel: 3, graphOptimizationLevel: optimized ? "extended" : "disabled",
    });
}

self.onmessage = async ({data}) => {
    try {
        const probabilities = await (data.model ? start(data) : probabilitiesOf(data.levels));
        self.postMessage({number: data.number, probabilities});
    } catch (error) {
        self.postMessage({number: data.number, problem: error.message});
    }
};
