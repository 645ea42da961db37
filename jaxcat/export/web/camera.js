// The camera: its frames are classified one after the other until it is stopped.

import {levelsOf} from "./decoding.js";
import {sentence, showBars} from "./answers.js";

const PAUSE = 30; // milliseconds between frames, for the page to react to keys and touches

export function cameraOf({button, panel, video, bars}, {classes, classify, announce}) {
    let stream = null, starting = false;

    async function start() {
        if (starting) return; // the button is not disabled meanwhile: it would lose the keyboard's focus
        starting = true;
        try {
            stream = await navigator.mediaDevices.getUserMedia({video: {facingMode: "environment"}});
        } catch (error) {
            announce(`No camera: ${error.message || error.name}`);
            return;
        } finally {
            starting = false;
        }
        stream.getTracks().forEach((track) => track.addEventListener("ended", stop)); // unplugged, or forbidden
        video.srcObject = stream;
        await video.play();
        panel.hidden = false;
        button.textContent = "Stop the camera";
        announce("The camera is on.");
        answerWhile(stream);
    }

    function stop() {
        stream.getTracks().forEach((track) => track.stop());
        [stream, video.srcObject, panel.hidden] = [null, null, true];
        button.textContent = "Use the camera";
        announce("The camera is off.");
    }

    // Says an answer aloud when its class is another than before, twice in a row.
    async function answerWhile(mine) {
        let said = "", before = "";
        while (stream === mine) {
            if (video.videoWidth) {
                const probabilities = await classify(levelsOf(video, video.videoWidth, video.videoHeight));
                if (stream !== mine) return;
                showBars(bars, classes, probabilities);
                const text = sentence(classes, probabilities), best = text.slice(0, text.lastIndexOf(","));
                if (best === before && best !== said) announce(`Camera: ${text}`);
                [said, before] = [best === before ? best : said, best];
            }
            await new Promise((resolve) => setTimeout(resolve, PAUSE));
        }
    }

    button.addEventListener("click", () => (stream ? stop() : start()));
}

// Why there can be no camera; "" if there may be one.
export function withoutCamera() {
    if (navigator.mediaDevices?.getUserMedia) return "";
    return isSecureContext ? "This browser gives no camera to a page." : "The camera needs this page over https.";
}
