// Requests to the server. Every one that is not a GET carries the token of the page.

const token = document.querySelector("meta[name=jaxcat-token]").content;

// The answer to a request. An error's message is the server's own sentence.
async function asked(path, options) {
    let response;
    try {
        response = await fetch(path, options);
    } catch {
        throw new Error("the server does not answer; is it still running?");
    }
    const found = await response.json().catch(() => ({}));
    if (!response.ok) {
        const error = new Error(found.error ?? `the server answered with status ${response.status}`);
        error.busy = response.status === 503;
        throw error;
    }
    return found;
}

export const state = () => asked("/state");

const PATIENCE = 60; // times that a full queue is asked again

// POSTs to a path; `query` are its parameters and `file` is its body. Waits where the queue is full.
export async function post(path, query = {}, file = null) {
    const address = `${path}?${new URLSearchParams(query)}`;
    const body = file && (await file.arrayBuffer().catch(() => null));
    if (file && body === null) throw new Error("the browser cannot read this file; was it moved or removed?");
    for (let tries = 0; ; tries++) {
        try {
            return await asked(address, {method: "POST", headers: {Authorization: `Bearer ${token}`}, body});
        } catch (error) {
            if (!error.busy || tries === PATIENCE) throw error;
        }
        await new Promise((resolve) => setTimeout(resolve, 300 + 400 * Math.random()));
    }
}
