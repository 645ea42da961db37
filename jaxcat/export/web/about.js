// What the page says of the classifier: its classes at the top, its origin at the bottom.

import {element} from "./answers.js";

const NAMED = 12; // classes that are named at the top

export function showAbout({classes, image, weights, step, provenance, licence, attribution, versions, parity}) {
    const names = classes.slice(0, NAMED).map((name) => element("li", {dir: "auto", title: name}, name));
    if (classes.length > NAMED) names.push(element("li", {}, `and ${classes.length - NAMED} more`));
    document.getElementById("classes").append(...names);
    const facts = {
        "Classes": String(classes.length),
        "Image": `${image.size}×${image.size} pixels, ${image.resize}`,
        "Weights": `${weights}, step ${step}`,
        "Origin of the weights": String(provenance.source ?? provenance.init_from ?? "not known"),
        "Licence of the weights": licence,
        "Attribution": attribution,
        "Made by": Object.entries(versions.export).map(([name, version]) => `${name} ${version}`).join(", "),
        "Largest difference from jaxcat": parity.probability?.toExponential(1) ?? "not measured",
    };
    const rows = Object.entries(facts).flatMap(([term, fact]) => [element("dt", {}, term), element("dd", {}, fact)]);
    document.getElementById("facts").append(...rows);
}
