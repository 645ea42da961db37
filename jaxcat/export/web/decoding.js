// Files and camera frames → levels, by this browser's own decoders: on white, turned upright, in sRGB.

import {kindOf} from "./kinds.js";

const AT_ONCE = 2 ** 22; // pixels of a canvas: phones limit a canvas to about 2 ** 24

// Returns {image, note}; throws an error whose message says why there is no image. `limits`: see "image" in the
// description, which has grey_bits and max_pixels.
export async function decoded(file, limits) {
    const bytes = new Uint8Array(await file.arrayBuffer());
    const {kind, problem, note} = kindOf(bytes, limits.grey_bits);
    if (problem) throw new Error(kind === "file" ? problem : `${kind}, ${problem}`);
    const content = new Blob([bytes]), address = URL.createObjectURL(content), picture = new Image();
    try {
        picture.src = address;
        // The bitmap is only made because damage is an error there; its levels may differ under transparency.
        const bitmap = createImageBitmap(content).then((made) => made.close());
        await Promise.all([picture.decode(), bitmap]).catch(() => {
            throw new Error(`${kind}, which this browser cannot read: damaged, too large, or of a kind that it lacks`);
        });
        const {naturalWidth: width, naturalHeight: height} = picture;
        if (width * height > limits.max_pixels) {
            throw new Error(`${width}×${height} pixels are more than the ${limits.max_pixels} that are allowed`);
        }
        return {image: levelsOf(picture, width, height), note};
    } finally {
        URL.revokeObjectURL(address);
    }
}

// {width, height, channels: 4, levels} of an image or of a video's frame, read in strips.
export function levelsOf(source, width, height) {
    const rows = Math.max(1, Math.min(height, Math.floor(AT_ONCE / width)));
    const pen = penOf(width, rows), levels = new Uint8ClampedArray(4 * width * height);
    pen.imageSmoothingEnabled = false;
    for (let top = 0; top < height; top += rows) {
        const some = Math.min(rows, height - top);
        pen.fillStyle = "white";
        pen.fillRect(0, 0, width, rows);
        pen.drawImage(source, 0, top, width, some, 0, 0, width, some);
        levels.set(pen.getImageData(0, 0, width, some).data, 4 * width * top);
    }
    return {width, height, channels: 4, levels};
}

// Whether this browser lets a page read the levels that it has drawn; some change a few against tracking.
export function readsExactly() {
    const side = 32, pen = penOf(side, side), drawn = pen.createImageData(side, side);
    drawn.data.forEach((_, i) => (drawn.data[i] = i % 4 === 3 ? 255 : (i * 37) % 256));
    pen.putImageData(drawn, 0, 0);
    const read = pen.getImageData(0, 0, side, side).data;
    return read.every((value, i) => value === drawn.data[i]);
}

function penOf(width, height) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width, height];
    return canvas.getContext("2d", {colorSpace: "srgb", willReadFrequently: true});
}
