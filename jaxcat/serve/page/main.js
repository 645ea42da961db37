// The page: sends images to the server and shows its answer for each.

import {useCamera} from "./camera.js";
import {card} from "./cards.js";
import {sentence, showClasses} from "./elements.js";
import {imagesOf} from "./images.js";
import {agreement, listen as listenToLearning, refresh} from "./learning.js";
import {post} from "./server.js";

const AT_ONCE = 3; // images that are sent at a time
const PAUSE = 150; // milliseconds between frames of the camera, for other images to be answered too
const WIDEST = 800; // pixels of a frame that is sent
const at = (id) => document.getElementById(id);
const announce = (text) => (at("status").textContent = text);

// Answers files; `classes` and `limits` are the server's, `settled` waits for all answers so far.
function answering({classes, limits, settled}) {
    return async (file, shown) => {
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
        addHeat(file, found.label, shown, settled);
        return sentence(found.top[0]);
    };
}

// Heat maps come after the answers, one at a time: they take longer.
let heated = Promise.resolve();

function addHeat(file, label, shown, settled) {
    heated = heated.then(settled).then(async () => {
        if (!shown.node.isConnected) return; // cleared meanwhile
        try {
            shown.heat((await post("/predict", {heat: 1}, file)).heat, label);
        } catch (error) {
            shown.withoutHeat(error.message);
        }
    });
}

// The present frame of a video as a PNG file, which loses nothing.
function frameOf(video, called) {
    const scale = Math.min(1, WIDEST / video.videoWidth), canvas = document.createElement("canvas");
    canvas.width = Math.round(scale * video.videoWidth);
    canvas.height = Math.round(scale * video.videoHeight);
    canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
    return new Promise((resolve, reject) => canvas.toBlob(
        (made) => (made ? resolve(new File([made], called)) : reject(new Error("no image of the camera")))));
}

async function start() {
    const {classes, limits} = await refresh(announce);
    showClasses(at("classes"), classes);
    const images = imagesOf({
        atOnce: AT_ONCE, card, announce, answer: answering({classes, limits, settled: () => images.settled()}),
    });
    listenToLearning(announce);
    const classify = async (video) => (await post("/predict", {}, await frameOf(video, "frame.png"))).top;
    useCamera({classify, pause: PAUSE, announce});
    let taken = 0;
    at("take").addEventListener("click", async () => {
        images.take([await frameOf(at("video"), `camera ${taken + 1}.png`)]);
        taken++;
    });
    announce("Ready.");
}

start().catch((error) => announce(`The page cannot start: ${error.message}`));
