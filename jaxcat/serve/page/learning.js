// Corrections: the person's agreement to keep images, and learning from them.

import {element, name, percent} from "./elements.js";
import {post, state} from "./server.js";

const at = (id) => document.getElementById(id);
const POLL = 700; // milliseconds between looks while a head is being solved

// Whether the person agrees that images are kept; asks where that is not known yet.
export function agreement() {
    if (at("agreed").checked) return Promise.resolve(true);
    const dialog = at("consent");
    return new Promise((resolve) => {
        let answer = false;
        at("agree").onclick = () => {
            answer = at("agreed").checked = true;
            dialog.close();
        };
        at("refuse").onclick = () => dialog.close();
        dialog.onclose = () => resolve(answer); // also by Escape
        dialog.showModal();
    });
}

// Shows what the server knows of corrections and runs, and looks again while a head is being solved.
export async function refresh(announce) {
    const now = await state();
    show(now, announce);
    if (now.learning.running) setTimeout(() => refresh(announce).catch((error) => announce(error.message)), POLL);
    return now;
}

let wasRunning = false;

function show({corrections, runs, learning}, announce) {
    const count = corrections === 1 ? "1 correction is kept." : `${corrections || "No"} corrections are kept.`;
    at("kept").textContent = corrections ? count : `${count} “Correct it” under an answer keeps one.`;
    at("learn").disabled = Boolean(learning.impossible) || learning.running || !corrections;
    at("learning").textContent =
        learning.problem || learning.impossible || (learning.running ? "The head is being solved …" : "");
    at("runs").hidden = runs.length < 2;
    at("run-rows").replaceChildren(...runs.map((run) => row(run, announce)));
    const used = runs.find((run) => run.used);
    at("run").replaceChildren(name(used.name));
    if (wasRunning && !learning.running && !learning.problem) announce("The head is solved: compare and choose below.");
    wasRunning = learning.running;
}

function row(run, announce) {
    const choose = element("button", {type: "button", className: "small"}, "Use it");
    choose.addEventListener("click", async () => {
        try {
            show(await post("/use", {run: run.name}), announce);
            announce(`Answers come from ${run.name} now.`);
        } catch (error) {
            announce(error.message);
        }
    });
    const notes = run.notes.map((text) => element("span", {className: "note"}, text));
    const head = element("th", {scope: "row"}, name(run.name), ...notes);
    return element("tr", {className: run.used ? "used" : ""}, head, figure("Leave-one-out", run.leave_one_out), figure("Validation", run.validation),
        element("td", {}, run.used ? "in use" : choose));
}

// A cell; narrow screens show the name of its column in it.
function figure(column, measured) {
    const cell = element("td");
    cell.dataset.of = column;
    if (!measured) {
        cell.append("not measured");
        return cell;
    }
    const {accuracy, interval, count} = measured, parts = [element("strong", {}, percent(accuracy))];
    if (interval) parts.push(element("span", {className: "note"}, `${percent(interval[0])} to ${percent(interval[1])}`));
    if (count) parts.push(element("span", {className: "note"}, `${count} images`));
    cell.append(...parts);
    return cell;
}

export function listen(announce) {
    at("learn").addEventListener("click", async () => {
        at("learn").disabled = true;
        try {
            await post("/learn");
            announce("The head is being solved.");
        } catch (error) {
            announce(error.message);
        }
        await refresh(announce);
    });
}
