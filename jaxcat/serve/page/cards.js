// What this page shows of an answer: the image, its heat map, the most likely classes, and how to correct them.

import {element, name, showBars} from "./elements.js";

const VIEWS = {image: "Image", heat: "Heat map", both: "Both"};
let numbered = 0;

// A list entry for one file, without an answer yet. Its methods add what becomes known.
export function card(fileName) {
    const image = element("img", {alt: ""}), heat = element("img", {alt: "", hidden: true, className: "heat"});
    const picture = element("div", {className: "picture"}, image, heat), bars = element("ol", {className: "bars"});
    const waiting = element("p", {className: "note"}), side = element("div", {className: "side"}, picture, waiting);
    const words = element("div", {className: "words"}, element("h3", {}, name(fileName)));
    const node = element("li", {className: "card"}, side, words);
    return {
        node,
        answer({view, top, size}) {
            [image.width, image.height] = size; // its shape, before it is loaded
            [image.src, image.alt] = [view, `${fileName}, as the classifier reads it`];
            showBars(bars, top);
            words.append(bars);
            waiting.textContent = "Heat map …";
        },
        // Lays the heat map over the image, with buttons that choose what is seen.
        heat(address, label) {
            [heat.src, heat.alt, heat.hidden] = [address, `where the network looked for ${label}`, false];
            waiting.replaceWith(toggle(picture));
        },
        withoutHeat: (reason) => (waiting.textContent = `No heat map: ${reason}`),
        // Offers to correct the label; `keep` takes the right class, `undo` removes it again.
        correctable(classes, label, {keep, undo}) {
            words.append(correction(classes, label, {keep, undo}));
        },
        problem(text) {
            if (!image.src) side.remove(); // there is nothing to see
            words.append(element("p", {className: "problem"}, text));
        },
    };
}

// Buttons that choose between image, heat map and both.
function toggle(picture) {
    const group = element("div", {className: "toggle"}), own = `view-${numbered++}`;
    group.setAttribute("role", "radiogroup");
    group.setAttribute("aria-label", "What is shown");
    for (const [view, words] of Object.entries(VIEWS)) {
        const choice = element("input", {type: "radio", name: own, value: view, checked: view === "both"});
        choice.addEventListener("change", () => (picture.dataset.view = view));
        group.append(element("label", {}, choice, words));
    }
    picture.dataset.view = "both";
    return group;
}

function correction(classes, label, {keep, undo}) {
    const box = element("details", {className: "correction"}), chosen = element("select");
    const button = element("button", {type: "button", className: "small"}, "Keep");
    const said = element("p", {className: "note"});
    said.setAttribute("role", "status");
    box.append(element("summary", {}, "Correct it"));
    const line = element("p", {className: "line"}, element("label", {}, "Right class ", chosen), button);
    let digest = "";
    box.addEventListener("toggle", () => {
        if (!chosen.options.length) chosen.append(...classes.map((each) => element("option", {value: each}, each)));
        if (!digest) chosen.value = label;
    }, {once: true});
    const attempt = async (work) => {
        button.disabled = chosen.disabled = true;
        try {
            await work();
        } catch (error) {
            said.textContent = error.message;
        }
        button.disabled = chosen.disabled = false;
    };
    button.addEventListener("click", () => attempt(async () => {
        const kept = await keep(chosen.value);
        if (!kept) return;
        digest = kept.digest;
        button.textContent = "Change";
        const remove = element("button", {type: "button", className: "small"}, "Remove");
        remove.addEventListener("click", () => attempt(async () => {
            await undo(digest);
            said.replaceChildren("Removed.");
            button.textContent = "Keep";
            button.focus();
        }));
        said.replaceChildren("Kept as ", name(kept.label), ". ", remove);
    }));
    box.append(line, said);
    return box;
}
