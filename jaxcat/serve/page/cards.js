// What the page shows of an answer. Names of classes and files become text nodes, never markup.

export function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
}

// A name from outside: its direction does not change that of the text around it.
export const name = (text, className = "") => element("bdi", {className, title: text}, text);

export const percent = (probability) => `${(100 * probability).toFixed(1)} %`;

export const sentence = ({label, probability}) => `${label}, ${percent(probability)}`;

// Fills a list with the most likely classes and their bars.
export function showBars(list, top) {
    list.replaceChildren(...top.map(([label, share]) => {
        const fill = element("span", {className: "fill"});
        fill.style.width = `${100 * share}%`;
        const bar = element("span", {className: "bar"}, fill);
        bar.setAttribute("aria-hidden", "true"); // the number beside it says the same
        return element("li", {}, name(label, "class"), element("data", {value: String(share)}, percent(share)), bar);
    }));
}

const VIEWS = {image: "Image", heat: "Heat map", both: "Both"};
let numbered = 0;

// A list entry for one file, without an answer yet. Its methods add what becomes known.
export function card(fileName) {
    const image = element("img", {alt: ""}), heat = element("img", {alt: "", hidden: true, className: "heat"});
    const picture = element("div", {className: "picture"}, image, heat), bars = element("ol", {className: "bars"});
    const side = element("div", {className: "side"}, picture);
    const words = element("div", {className: "words"}, element("h3", {}, name(fileName)));
    const node = element("li", {className: "card"}, side, words);
    const say = (className, ...text) => words.append(element("p", {className}, ...text));
    return {
        node,
        answer({view, top, size}) {
            [image.width, image.height] = size; // its shape, before it is loaded
            [image.src, image.alt] = [view, `${fileName}, as the classifier reads it`];
            showBars(bars, top);
            words.append(bars);
        },
        // Lays the heat map over the image, with buttons that choose what is seen.
        heat(address, label) {
            [heat.src, heat.alt, heat.hidden] = [address, `where the network looked for ${label}`, false];
            side.append(toggle(picture));
        },
        // Offers to correct the label; `keep` takes the right class, `undo` removes it again.
        correctable(classes, label, {keep, undo}) {
            words.append(correction(classes, label, {keep, undo}));
        },
        problem(text) {
            if (!image.src) side.remove(); // there is nothing to see
            say("problem", text);
        },
        note: (text) => say("note", text),
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
