"use strict";

// data ----------------------------------------------------------------------------------------------------------------

// The JSON of the script element with this identifier, or what else is given.
function island(identifier, otherwise = null) {
    const found = document.getElementById(identifier);
    return found ? JSON.parse(found.textContent) : otherwise;
}

const classes = island("classes", []);  // names
const records = island("records", {});  // number → [file, label, answer, probability of the answer, of the label]
const images = island("images", {});  // number → a JPEG file as base64
const larger = island("larger", {});  // number → [image, heat map], data URIs

// elements ------------------------------------------------------------------------------------------------------------

// An element with attributes and children; texts are never HTML.
function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
        made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
}

function named(text) {
    return element("bdi", {}, text);
}

function percent(share) {
    const text = (100 * share).toFixed(1);
    if (share < 1 && text === "100.0") {
        return "99.9 %";
    }
    return share > 0 && text === "0.0" ? "< 0.1 %" : `${text} %`;
}

// Fills in the images below this element.
function showImages(root) {
    for (const image of root.querySelectorAll("img[data-image]:not([src])")) {
        if (images[image.dataset.image]) {
            image.src = `data:image/jpeg;base64,${images[image.dataset.image]}`;
        }
    }
    for (const [kind, place] of [["larger", 0], ["heat", 1]]) {
        for (const image of root.querySelectorAll(`img[data-${kind}]:not([src])`)) {
            image.src = larger[image.dataset[kind]][place];
        }
    }
}

// The card of a record: thumbnail, answer, label, file.
function card(number) {
    const [file, label, answer, sure, ofLabel] = records[number];
    const right = label === answer;
    const made = element("li", {class: "card"},
        element("img", {class: "thumbnail", "data-image": number, alt: `${file}, labelled ${classes[label]}`}),
        element("p", {class: "answer"},
            element("span", {class: `mark ${right ? "right" : "wrong"}`}, right ? "right" : "wrong"), " ",
            named(classes[answer]), " ", element("span", {class: "probability"}, percent(sure))));
    if (!right) {
        made.append(element("p", {class: "label"}, "labelled ", named(classes[label]), " ",
            element("span", {class: "probability"}, percent(ofLabel))));
    }
    const name = named(file);
    name.title = file;
    made.append(element("p", {class: "file"}, name));
    showImages(made);
    return made;
}

// the images of a cell ------------------------------------------------------------------------------------------------

const AT_ONCE = 24;

function followCells() {
    const panel = document.getElementById("cell");
    if (!panel) {
        return;
    }
    const title = panel.querySelector("h3"), list = panel.querySelector("ul"), more = panel.querySelector(".more");
    let opened = null, waiting = [];

    function show() {
        list.append(...waiting.splice(0, AT_ONCE).map(card));
        more.hidden = waiting.length === 0;
    }

    function close() {
        panel.hidden = true;
        list.replaceChildren();
        opened?.setAttribute("aria-pressed", "false");
        opened?.focus();
        opened = null;
    }

    function open(button) {
        opened?.setAttribute("aria-pressed", "false");
        opened = button;
        button.setAttribute("aria-pressed", "true");
        const label = Number(button.dataset.label), answer = Number(button.dataset.answer);
        const count = Number(button.dataset.count);
        waiting = Object.keys(records).filter((key) => records[key][1] === label && records[key][2] === answer);
        waiting.sort((one, other) => (label === answer ? 1 : -1) * (records[one][3] - records[other][3]));
        const there = waiting.length < count ? `, ${waiting.length} of them in this page` : "";
        title.replaceChildren(`${count} labelled `, named(classes[label]), ", answered ", named(classes[answer]), there);
        list.replaceChildren();
        show();
        panel.hidden = false;
        title.focus({preventScroll: true});
        panel.scrollIntoView({block: "nearest"});
    }

    for (const button of document.querySelectorAll("button.cell")) {
        button.addEventListener("click", () => button === opened ? close() : open(button));
    }
    more.addEventListener("click", show);
    panel.querySelector(".close").addEventListener("click", close);
    panel.addEventListener("keydown", (event) => event.key === "Escape" && close());
}

// the gallery ---------------------------------------------------------------------------------------------------------

function followViews() {
    const lists = document.getElementById("lists");
    for (const choice of document.querySelectorAll("input[name=view]")) {
        choice.addEventListener("change", () => { lists.dataset.view = choice.value; });
        if (choice.checked && lists) {
            lists.dataset.view = choice.value;  // a browser may keep a choice when the page is loaded again
        }
    }
}

// Long lists show their first items, and a button for the others.
function shortenLists() {
    for (const list of document.querySelectorAll("ul[data-first]")) {
        const others = [...list.children].slice(Number(list.dataset.first));
        if (others.length === 0) {
            continue;
        }
        others.forEach((item) => item.classList.add("later"));
        const button = element("button", {type: "button", class: "more"}, `Show ${others.length} more`);
        button.addEventListener("click", () => {
            others.forEach((item) => item.classList.remove("later"));
            button.parentElement.remove();
            others[0].tabIndex = -1;
            others[0].focus();
        });
        list.after(element("p", {class: "buttons"}, button));
    }
}

// long tables ---------------------------------------------------------------------------------------------------------

// Shows the rows of a table a page at a time, and only those with a text in them.
function pageTables() {
    for (const place of document.querySelectorAll(".paged")) {
        const size = Number(place.dataset.page), rows = [...place.querySelectorAll("tbody tr")];
        if (rows.length <= size) {
            continue;
        }
        const what = place.dataset.what;
        const texts = rows.map((row) => row.textContent.toLowerCase());
        const search = element("input", {type: "search", "aria-label": `Find ${what}`, placeholder: `Find ${what}`});
        const before = element("button", {type: "button"}, "Previous");
        const after = element("button", {type: "button"}, "Next");
        const where = element("span", {role: "status"});
        let first = 0;

        const show = () => {
            const wanted = search.value.trim().toLowerCase();
            const found = rows.filter((row, number) => texts[number].includes(wanted));
            first = Math.max(0, Math.min(first, Math.floor((found.length - 1) / size) * size));
            const shown = new Set(found.slice(first, first + size));
            rows.forEach((row) => row.classList.toggle("later", !shown.has(row)));
            where.textContent = found.length
                ? `${first + 1} to ${Math.min(first + size, found.length)} of ${found.length} ${what}` : `no ${what}`;
            before.disabled = first === 0;
            after.disabled = first + size >= found.length;
        };

        search.addEventListener("input", () => { first = 0; show(); });
        before.addEventListener("click", () => { first -= size; show(); });
        after.addEventListener("click", () => { first += size; show(); });
        place.prepend(element("div", {class: "pager"}, search, before, after, where));
        show();
    }
}

showImages(document);
followCells();
followViews();
shortenLists();
pageTables();
