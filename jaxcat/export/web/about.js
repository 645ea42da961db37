// What the page says of the classifier: its classes at the top, its origin at the bottom.

import {element, showClasses} from "./elements.js";

export function showAbout({classes, image, weights, step, provenance, licence, attribution, versions, parity}) {
    showClasses(document.getElementById("classes"), classes);
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
