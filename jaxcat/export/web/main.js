// The page: takes files from the button, a drop or a paste, and shows an answer for each.

import {resized} from "./pixels.js";
import {decoded, readsExactly} from "./decoding.js";
import {THREADS, opened} from "./network.js";
import {card, sentence} from "./answers.js";
import {cameraOf, withoutCamera} from "./camera.js";
import {showAbout} from "./about.js";

const description = JSON.parse(document.getElementById("description").textContent);
const {classes, image: limits} = description;
const at = (id) => document.getElementById(id);
const announce = (text) => (at("status").textContent = text);
const network = opened(limits.size);

async function classify(image) {
    return (await network)(resized(image, limits.size, limits.resize).levels);
}

// As many files at once as the network has threads; answers are announced in the order in which files came.
const lanes = Array.from({length: THREADS}, () => Promise.resolve());
let taken = 0, said = Promise.resolve();

function take(files) {
    for (const file of files) {
        const shown = card(file.name || "pasted image");
        at("answers").append(shown.node);
        const lane = taken++ % THREADS, done = lanes[lane].then(() => answer(file, shown));
        lanes[lane] = done;
        said = said.then(async () => announce(await done));
    }
    at("clear").hidden = !at("answers").children.length;
}

// Fills the card of a file. Returns what is announced.
async function answer(file, shown) {
    const name = file.name || "pasted image";
    try {
        const {image, note} = await decoded(file, limits);
        const square = resized(image, limits.size, limits.resize);
        shown.image(square);
        const probabilities = await (await network)(square.levels);
        shown.answer(classes, probabilities);
        if (note) shown.note(note);
        return `${name}: ${sentence(classes, probabilities)}`;
    } catch (error) {
        shown.problem(`No answer: ${error.message}`);
        return `${name}: no answer: ${error.message}`;
    }
}

function listen() {
    at("choose").addEventListener("click", () => at("files").click());
    at("files").addEventListener("change", () => {
        take([...at("files").files]);
        at("files").value = ""; // so that the same file can be chosen again
    });
    document.addEventListener("paste", (event) => take([...event.clipboardData.files]));
    for (const kind of ["dragover", "dragleave", "drop"]) {
        document.addEventListener(kind, (event) => {
            event.preventDefault();
            at("drop").classList.toggle("over", kind === "dragover");
            if (kind === "drop") take([...event.dataTransfer.files]);
        });
    }
    at("clear").addEventListener("click", () => {
        at("answers").replaceChildren();
        at("clear").hidden = true;
        at("choose").focus();
    });
}

async function start() {
    showAbout(description);
    listen();
    at("choose").disabled = false;
    const parts = {button: at("camera"), panel: at("live"), video: at("video"), bars: at("live-bars")};
    at("camera").disabled = Boolean(withoutCamera());
    at("camera-problem").textContent = withoutCamera();
    cameraOf(parts, {classes, classify, announce});
    if (!readsExactly()) {
        at("warning").textContent =
            "This browser changes a few levels of the images that pages read, against tracking: answers may be less exact.";
    }
    try {
        await network;
        if (!at("answers").children.length) announce("Ready.");
    } catch (error) {
        announce(`The classifier cannot start: ${error.message}`);
    }
}

start();
