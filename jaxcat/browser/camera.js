// The camera: its frames are classified one after the other until it is stopped.

import {sentence, showBars} from "./elements.js";

const REASONS = { // names of errors that getUserMedia gives
    NotFoundError: "there is none", OverconstrainedError: "there is none", NotAllowedError: "it is not allowed",
    NotReadableError: "another program uses it",
};
const at = (id) => document.getElementById(id);

// `classify` gives the most likely classes of the video's present frame: pairs of a class and its probability. Between
// frames are `pause` milliseconds.
export function useCamera({classify, pause, announce}) {
    const button = at("camera"), video = at("video"), problem = withoutCamera();
    let stream = null, starting = false;

    async function start() {
        if (starting) return; // the button is not disabled meanwhile: it would lose the keyboard's focus
        starting = true;
        try {
            stream = await navigator.mediaDevices.getUserMedia({video: {facingMode: "environment"}});
        } catch (error) {
            announce(`No camera: ${REASONS[error.name] ?? (error.message || error.name)}.`);
            return;
        } finally {
            starting = false;
        }
        stream.getTracks().forEach((track) => track.addEventListener("ended", stop)); // unplugged, or forbidden
        video.srcObject = stream;
        await video.play();
        at("live").hidden = false;
        button.textContent = "Stop the camera";
        announce("The camera is on.");
        answerWhile(stream);
    }

    function stop() {
        stream.getTracks().forEach((track) => track.stop());
        [stream, video.srcObject, at("live").hidden] = [null, null, true];
        button.textContent = "Use the camera";
        announce("The camera is off.");
    }

    // Says an answer aloud when its class is another than before, twice in a row.
    async function answerWhile(mine) {
        let said = "", before = "";
        while (stream === mine) {
            if (video.videoWidth) {
                try {
                    const top = await classify(video), [label] = top[0];
                    if (stream !== mine) return;
                    showBars(at("live-bars"), top);
                    if (label === before && label !== said) announce(`Camera: ${sentence(top[0])}`);
                    [said, before] = [label === before ? label : said, label];
                } catch (error) {
                    announce(`Camera: ${error.message}`);
                }
            }
            await new Promise((resolve) => setTimeout(resolve, pause));
        }
    }

    button.addEventListener("click", () => (stream ? stop() : start()));
    button.disabled = Boolean(problem);
    at("camera-problem").textContent = problem;
}

// Why there can be no camera; "" if there may be one.
function withoutCamera() {
    if (navigator.mediaDevices?.getUserMedia) return "";
    if (isSecureContext) return "This browser gives no camera to a page.";
    return "Browsers give the camera only to pages of this machine (127.0.0.1) or over https.";
}
