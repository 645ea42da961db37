// The page: takes files from the button, a drop or a paste, and shows the server's answer for each.

import {cameraOf, withoutCamera} from "./camera.js";
import {card, element, name, sentence} from "./cards.js";
import {agreement, listen as listenToLearning, refresh} from "./learning.js";
import {post} from "./server.js";

const AT_ONCE = 3; // images that are sent at a time
const NAMED = 12; // classes that are named at the top
const at = (id) => document.getElementById(id);
const announce = (text) => (at("status").textContent = text);
let classes = [], limits = {};

const lanes = Array.from({length: AT_ONCE}, () => Promise.resolve());
let taken = 0, said = Promise.resolve();

function take(files) {
    for (const file of files) {
        const called = file.name || "pasted image", shown = card(called);
        at("answers").append(shown.node);
        const lane = taken++ % AT_ONCE, done = lanes[lane].then(() => answer(file, called, shown));
        lanes[lane] = done;
        said = said.then(async () => announce(await done));
    }
    at("clear").hidden = !at("answers").children.length;
}

// Fills the card of a file. Returns what is announced.
async function answer(file, called, shown) {
    try {
        if (file.size > limits.bytes) throw new Error(`the image has more than ${limits.bytes / 2 ** 20} MiB`);
        const found = await post("/predict", {view: 1}, file);
        shown.answer(found);
        shown.correctable(classes, found.label, {
            async keep(label) {
                if (!(await agreement())) return null;
                const kept = await post("/corrections", {label, agreed: 1}, file);
                await refresh(announce);
                return kept;
            },
            async undo(digest) {
                await post("/corrections/forget", {digest});
                await refresh(announce);
            },
        });
        addHeat(file, found.label, shown);
        return `${called}: ${sentence(found)}`;
    } catch (error) {
        shown.problem(error.message);
        return `${called}: ${error.message}`;
    }
}

// Heat maps come after the answers, one at a time: they take longer.
let heated = Promise.resolve();

function addHeat(file, label, shown) {
    heated = heated.then(() => Promise.all(lanes)).then(async () => {
        if (!shown.node.isConnected) return; // cleared meanwhile
        try {
            shown.heat((await post("/predict", {heat: 1}, file)).heat, label);
        } catch (error) {
            shown.note(`No heat map: ${error.message}`);
        }
    });
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

function showClasses() {
    const names = classes.slice(0, NAMED).map((each) => element("li", {}, name(each)));
    if (classes.length > NAMED) names.push(element("li", {}, `and ${classes.length - NAMED} more`));
    at("classes").replaceChildren(...names);
}

async function start() {
    ({classes, limits} = await refresh(announce));
    showClasses();
    listen();
    listenToLearning(announce);
    at("choose").disabled = false;
    at("camera").disabled = Boolean(withoutCamera());
    at("camera-problem").textContent = withoutCamera();
    const parts = {button: at("camera"), panel: at("live"), video: at("video"), bars: at("live-bars"), shot: at("take")};
    cameraOf(parts, {classify: (file) => post("/predict", {}, file), take, announce});
    announce("Ready.");
}

start().catch((error) => announce(`The page cannot start: ${error.message}`));
