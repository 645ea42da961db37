// What pages show of an answer. Names of classes and files become text nodes, never markup.

const NAMED = 12; // classes that are named at the top

export function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
}

// A name from outside: its direction does not change that of the text around it.
export function name(text, className = "") {
    return element("bdi", {className, title: text}, text);
}

export function percent(probability) {
    return `${(100 * probability).toFixed(1)} %`;
}

export function sentence([label, probability]) {
    return `${label}, ${percent(probability)}`;
}

// Fills a list with classes and their bars; `top` are pairs of a class and its probability.
export function showBars(list, top) {
    list.replaceChildren(...top.map(([label, share]) => {
        const fill = element("span", {className: "fill"});
        fill.style.width = `${100 * share}%`;
        const bar = element("span", {className: "bar"}, fill);
        bar.setAttribute("aria-hidden", "true"); // the number beside it says the same
        return element("li", {}, name(label, "class"), element("data", {value: String(share)}, percent(share)), bar);
    }));
}

// Fills the list at the top of a page with the names of the classes.
export function showClasses(list, classes) {
    const names = classes.slice(0, NAMED).map((each) => element("li", {}, name(each)));
    if (classes.length > NAMED) names.push(element("li", {}, `and ${classes.length - NAMED} more`));
    list.replaceChildren(...names);
}
