// What this page shows of an answer: the square that is classified, and the most likely classes.

import {element, name, showBars} from "./elements.js";

const SHOWN = 5; // classes of an answer

// The most likely classes, first the most likely one: pairs of a class and its probability.
export function ranking(classes, probabilities) {
    const places = Array.from(probabilities.keys()).sort((a, b) => probabilities[b] - probabilities[a]);
    return places.slice(0, SHOWN).map((place) => [classes[place], probabilities[place]]);
}

// A list entry for one file, without an answer yet. Its methods add what becomes known.
export function card(fileName) {
    const picture = element("canvas", {width: 1, height: 1}), bars = element("ol", {className: "bars"});
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", "no image");
    const words = element("div", {className: "words"}, element("h3", {}, name(fileName)));
    const node = element("li", {className: "card"}, picture, words);
    const say = (className, text) => words.append(element("p", {className}, text));
    return {
        node,
        image(square) {
            draw(picture, square);
            picture.setAttribute("aria-label", `the part of ${fileName} that is classified`);
        },
        answer(top) {
            showBars(bars, top);
            words.append(bars);
        },
        note: (text) => say("note", text),
        problem: (text) => say("problem", text),
    };
}

function draw(canvas, {width, height, levels}) {
    [canvas.width, canvas.height] = [width, height];
    const pen = canvas.getContext("2d"), drawn = pen.createImageData(width, height);
    for (let from = 0, to = 0; from < levels.length; from += 3, to += 4) {
        drawn.data.set(levels.subarray(from, from + 3), to);
        drawn.data[to + 3] = 255;
    }
    pen.putImageData(drawn, 0, 0);
}
