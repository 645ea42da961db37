// The network: the file model.onnx, run by ONNX Runtime Web in threads of its own, one image in each.

import {asset} from "./assets.js";

export const THREADS = Math.min(2, navigator.hardwareConcurrency || 1); // each holds the network once

// Returns a function: levels of a square image of 3 channels → probabilities, float32, in the order of the classes.
export async function opened(size) {
    const [code, runtime, model] = await Promise.all(
        ["worker.js", "ort-wasm-simd-threaded.wasm", "model.onnx"].map(asset),
    );
    const address = URL.createObjectURL(new Blob([code], {type: "text/javascript"}));
    const threads = [];
    const add = async () => {
        const thread = threadOf(address);
        await thread.ask({runtime, model, size});
        threads.push(thread);
    };
    await add();
    if (THREADS > 1) add().catch(() => {}); // one is enough, where memory is short
    return (levels) => {
        const free = threads.reduce((best, thread) => (thread.busy() < best.busy() ? thread : best));
        return free.ask({levels});
    };
}

function threadOf(address) {
    const worker = new Worker(address), asked = new Map();
    let last = 0;
    worker.onmessage = ({data: {number, probabilities, problem}}) => {
        const {resolve, reject} = asked.get(number);
        asked.delete(number);
        if (problem) reject(new Error(problem));
        else resolve(probabilities);
    };
    worker.onerror = (event) => {
        for (const {reject} of asked.values()) reject(new Error(event.message || "its thread does not start"));
        asked.clear();
    };
    const ask = (message) => new Promise((resolve, reject) => {
        last += 1;
        asked.set(last, {resolve, reject});
        worker.postMessage({number: last, ...message});
    });
    return {ask, busy: () => asked.size};
}
