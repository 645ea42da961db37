// Images that are chosen, dropped or pasted: a card and an answer for each, in the order in which they came.

const at = (id) => document.getElementById(id);

// `atOnce` images are answered at a time. `card` makes the card of a name; `answer` fills it for a file and returns
// what is announced. Returns `take`, which answers a list of files, and `settled`, a promise of all answers so far.
export function imagesOf({atOnce, card, answer, announce}) {
    const lanes = Array.from({length: atOnce}, () => Promise.resolve());
    let taken = 0, said = Promise.resolve();

    function take(files) {
        for (const file of files) {
            const called = file.name || "pasted image", shown = card(called);
            at("answers").append(shown.node);
            const lane = taken++ % atOnce, done = lanes[lane].then(() => answer(file, shown)).catch((error) => {
                shown.problem(error.message);
                return error.message;
            });
            lanes[lane] = done;
            said = said.then(async () => announce(`${called}: ${await done}`));
        }
        at("clear").hidden = !at("answers").children.length;
    }

    at("choose").addEventListener("click", () => at("files").click());
    at("files").addEventListener("change", () => {
        take([...at("files").files]);
        at("files").value = ""; // so that the same file can be chosen again
    });
    document.addEventListener("paste", (event) => take([...event.clipboardData.files]));
    for (const kind of ["dragover", "dragleave", "drop"]) {
        document.addEventListener(kind, (event) => {
            event.preventDefault();
            at("drop").classList.toggle("over", kind === "dragover");
            if (kind === "drop") take([...event.dataTransfer.files]);
        });
    }
    at("clear").addEventListener("click", () => {
        at("answers").replaceChildren();
        at("clear").hidden = true;
        at("choose").focus();
    });
    at("choose").disabled = false;
    return {take, settled: () => Promise.all(lanes)};
}
