// The page: decodes and resizes images, has them classified, and shows an answer for each.

import {decoded, levelsOf, readsExactly} from "./decoding.js";
import {THREADS, opened} from "./network.js";
import {card, ranking} from "./answers.js";
import {sentence} from "./elements.js";
import {imagesOf} from "./images.js";
import {useCamera} from "./camera.js";
import {resized} from "./pixels.js";
import {showAbout} from "./about.js";

const PAUSE = 30; // milliseconds between frames of the camera, for the page to react to keys and touches
const description = JSON.parse(document.getElementById("description").textContent);
const {classes, image: limits} = description;
const at = (id) => document.getElementById(id);
const announce = (text) => (at("status").textContent = text);
const network = opened(limits.size);

async function classify(square) {
    return ranking(classes, await (await network)(square.levels));
}

// One image at a time is decoded, because a large one takes much memory; it is let go as soon as it is resized.
let decoding = Promise.resolve();

function squareOf(file) {
    const found = decoding.then(async () => {
        const {image, note} = await decoded(file, limits);
        return {square: resized(image, limits.size, limits.resize), note};
    });
    decoding = found.catch(() => {});
    return found;
}

async function answer(file, shown) {
    try {
        const {square, note} = await squareOf(file);
        shown.image(square);
        const top = await classify(square);
        shown.answer(top);
        if (note) shown.note(note);
        return sentence(top[0]);
    } catch (error) {
        throw new Error(`No answer: ${error.message}`);
    }
}

async function start() {
    showAbout(description);
    imagesOf({atOnce: THREADS + 1, card, answer, announce}); // one more, which is decoded while others are computed
    const frame = (video) => levelsOf(video, video.videoWidth, video.videoHeight);
    useCamera({
        classify: (video) => classify(resized(frame(video), limits.size, limits.resize)), pause: PAUSE, announce,
    });
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
