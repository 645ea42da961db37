// The map of the images: what the pointer or the arrow keys are on is shown beside it.
function startMap() {
    const plot = document.getElementById("map-plot");
    if (!plot) {
        return;
    }
    const { points, classes } = island("map-points");
    const drawing = plot.querySelector("svg");
    const marks = [...drawing.children].slice(0, points.length);
    const ring = document.getElementById("map-ring");
    const shown = document.querySelector("#map-shown img");
    const said = document.getElementById("map-said");
    const choice = document.getElementById("map-choice");
    const REACH = 30; // of the pointer, in units of the drawing
    let current = -1;
    let visible = points.map(() => true);

    function show(index) {
        current = index;
        const [x, y, number, label, predicted, probability, file] = points[index];
        ring.setAttribute("cx", x);
        ring.setAttribute("cy", y);
        shown.src = `data:image/jpeg;base64,${images[number]}`;
        shown.hidden = false;
        shown.alt = `labelled ${classes[label]}`;
        said.replaceChildren(
            element("strong", {}, element("bdi", {}, classes[predicted])),
            ` with probability ${probability.toFixed(3)}, `,
            ...(label === predicted ? ["right"] : ["but it is labelled ", element("bdi", {}, classes[label])]),
            element("br"),
            element("bdi", { class: "file" }, file),
        );
    }

    // The nearest visible point for which `cost` is finite, or -1.
    function nearest(cost) {
        let found = -1;
        let least = Infinity;
        points.forEach((point, index) => {
            const value = visible[index] ? cost(point, index) : Infinity;
            if (value < least) {
                least = value;
                found = index;
            }
        });
        return found;
    }

    function pointed(event) {
        const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(drawing.getScreenCTM().inverse());
        const index = nearest(([x, y]) => {
            const distance = Math.hypot(x - at.x, y - at.y);
            return distance <= REACH ? distance : Infinity;
        });
        if (index >= 0 && index !== current) {
            show(index);
        }
    }

    const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

    function pressed(event) {
        const direction = DIRECTIONS[event.key];
        if (!direction || event.ctrlKey || event.altKey || event.metaKey) {
            return;
        }
        event.preventDefault();
        const [dx, dy] = direction;
        const from = current >= 0 && visible[current] ? points[current] : null;
        const index = nearest(([x, y], other) => {
            if (!from) {
                return Math.hypot(x, y);
            }
            const along = (x - from[0]) * dx + (y - from[1]) * dy;
            const aside = Math.abs((x - from[0]) * dy) + Math.abs((y - from[1]) * dx);
            return other !== current && along > 0 ? along + 2 * aside : Infinity;
        });
        if (index >= 0) {
            show(index);
        }
    }

    function chosen() {
        visible = points.map(([, , , label, predicted]) =>
            choice.value === "wrong" ? label !== predicted : choice.value === "" || label === Number(choice.value),
        );
        marks.forEach((mark, index) => mark.classList.toggle("faint", !visible[index]));
    }

    plot.addEventListener("pointermove", pointed);
    plot.addEventListener("pointerdown", pointed);
    plot.addEventListener("keydown", pressed);
    choice.addEventListener("change", chosen);
    choice.closest(".choice").hidden = false;
}

startMap();
