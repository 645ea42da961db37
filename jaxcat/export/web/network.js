// The network: the file model.onnx, run by ONNX Runtime Web in threads of its own, one image in each.

import {asset} from "./assets.js";

export const THREADS = Math.min(2, navigator.hardwareConcurrency || 1); // each holds the network once

// Returns a function: levels of a square image of 3 channels → probabilities, float32, in the order of the classes.
export async function opened(size) {
    const [code, files] = [asset("worker.js"), Promise.all(["ort-wasm-simd-threaded.wasm", "model.onnx"].map(asset))];
    files.catch(() => {}); // add() waits for them, and tells
    const address = URL.createObjectURL(new Blob([await code], {type: "text/javascript"}));
    const threads = [];
    const add = async (optimized) => {
        const thread = threadOf(address); // it starts while the files are unpacked
        const [runtime, model] = await files;
        await thread.ask({runtime, model, size, optimized});
        threads.push(thread);
    };
    let more = THREADS > 1;
    const probabilitiesOf = async (levels) => {
        const free = threads.reduce((best, thread) => (thread.busy() < best.busy() ? thread : best));
        const found = await free.ask({levels});
        if (more) {
            more = false; // after the first answer, which it would slow down
            add(true).catch(() => {}); // one is enough, where memory is short
        }
        return found;
    };
    await add(false);
    setTimeout(() => { // the first one takes longer: if no image waits, a black one is first
        if (!threads[0].busy()) probabilitiesOf(new Uint8ClampedArray(3 * size ** 2)).catch(() => {});
    });
    return probabilitiesOf;
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
