"use strict";

// Thumbnails: each stands once in the page, as base64 by the number of its record.
const images = JSON.parse(document.getElementById("images").textContent);

function showImages(root) {
    for (const image of root.querySelectorAll("img[data-image]:not([src])")) {
        const found = images[image.dataset.image];
        if (found) {
            image.src = `data:image/jpeg;base64,${found}`;
        }
    }
}

// An element with attributes and children; texts are never HTML.
function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
        made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
}

// The JSON of the script element with this identifier, or null.
function island(identifier) {
    const found = document.getElementById(identifier);
    return found && JSON.parse(found.textContent);
}

showImages(document);
