// The camera: its frames are classified one after the other until it is stopped.

import {sentence, showBars} from "./cards.js";

const PAUSE = 150; // milliseconds between frames, for other images to be answered too
const WIDEST = 800; // pixels of a frame that is sent

// `classify` answers an image file; `take` shows one among the answers.
export function cameraOf({button, panel, video, bars, shot}, {classify, take, announce}) {
    let stream = null, starting = false, taken = 0;

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
                try {
                    const found = await classify(await frame());
                    if (stream !== mine) return;
                    showBars(bars, found.top);
                    if (found.label === before && before !== said) announce(`Camera: ${sentence(found)}`);
                    [said, before] = [found.label === before ? before : said, found.label];
                } catch (error) {
                    announce(`Camera: ${error.message}`);
                }
            }
            await new Promise((resolve) => setTimeout(resolve, PAUSE));
        }
    }

    // The present frame as a PNG file, which loses nothing.
    function frame() {
        const scale = Math.min(1, WIDEST / video.videoWidth), canvas = document.createElement("canvas");
        canvas.width = Math.round(scale * video.videoWidth);
        canvas.height = Math.round(scale * video.videoHeight);
        canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
        return new Promise((resolve, reject) => canvas.toBlob(
            (made) => (made ? resolve(new File([made], `camera ${taken + 1}.png`)) : reject(new Error("no image of the camera")))));
    }

    button.addEventListener("click", () => (stream ? stop() : start()));
    shot.addEventListener("click", async () => {
        take([await frame()]);
        taken++;
    });
}

// Why there can be no camera; "" if there may be one.
export function withoutCamera() {
    if (navigator.mediaDevices?.getUserMedia) return "";
    if (isSecureContext) return "This browser gives no camera to a page.";
    return "Browsers give the camera only to pages of this machine (127.0.0.1) or over https.";
}
