// What the page shows of an answer. Names of classes and files become text nodes, never markup.

export const SHOWN = 5; // classes of an answer

export function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
}

export function percent(probability) {
    return `${(100 * probability).toFixed(1)} %`;
}

// The places of the most likely classes, first the most likely one.
export function ranking(probabilities) {
    return Array.from(probabilities.keys()).sort((a, b) => probabilities[b] - probabilities[a]).slice(0, SHOWN);
}

export function sentence(classes, probabilities) {
    const [best] = ranking(probabilities);
    return `${classes[best]}, ${percent(probabilities[best])}`;
}

// Fills a list with the most likely classes and their bars.
export function showBars(list, classes, probabilities) {
    list.replaceChildren(...ranking(probabilities).map((place) => {
        const share = probabilities[place], fill = element("span", {className: "fill"});
        fill.style.width = `${100 * share}%`;
        const bar = element("span", {className: "bar"}, fill);
        bar.setAttribute("aria-hidden", "true"); // the number beside it says the same
        const name = element("span", {className: "class", dir: "auto", title: classes[place]}, classes[place]);
        return element("li", {}, name, element("data", {value: String(share)}, percent(share)), bar);
    }));
}

// A list entry for one file, without an answer yet. Its methods add what becomes known.
export function card(fileName) {
    const picture = element("canvas", {width: 1, height: 1}), bars = element("ol", {className: "bars"});
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", "no image");
    const words = element("div", {className: "words"}, element("h3", {dir: "auto", title: fileName}, fileName));
    const node = element("li", {className: "card"}, picture, words);
    const say = (className, text) => words.append(element("p", {className}, text));
    return {
        node,
        image(square) {
            draw(picture, square);
            picture.setAttribute("aria-label", `the part of ${fileName} that is classified`);
        },
        answer(classes, probabilities) {
            showBars(bars, classes, probabilities);
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
