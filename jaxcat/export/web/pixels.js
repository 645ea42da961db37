// Images of any size → squares, with the same levels as jaxcat/data/images/resizing.py gives with Pillow.
//
// Pillow resizes rows and columns one after the other. Each pass is a weighted sum of neighbouring levels, with weights
// that are whole numbers of 2 ** -22, rounded to a level: src/libImaging/Resample.c, the functions precompute_coeffs,
// normalize_coeffs_8bpc and ImagingResampleHorizontal_8bpc.

const PRECISION = 22; // PRECISION_BITS in Resample.c: 32 - 8 - 2

// A filter's weight of distances is 0 beyond its support.
const BILINEAR = {support: 1, weight: (x) => Math.max(1 - Math.abs(x), 0)};
const BICUBIC = {support: 2, weight: cubic};

function cubic(distance) {
    const x = Math.abs(distance), a = -0.5;
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

// An image is {width, height, channels, levels}: levels row by row, of 4 channels (alpha last, which is not used) or 3.
// `mode` is a name in resizing.py's RESIZES. The result has 3 channels.
export function resized(image, size, mode) {
    return MODES[mode](image, size);
}

const MODES = {
    squash: (image, size) => scaled(image, size, size, BILINEAR, [0, 0, image.width, image.height]),
    center_crop(image, size) {
        const side = Math.min(image.width, image.height);
        const left = (image.width - side) / 2, top = (image.height - side) / 2;
        return scaled(image, size, size, BILINEAR, [left, top, left + side, top + side]);
    },
    timm: (image, size) => middleOf(image, size, Math.floor(size / 0.875), BICUBIC),
    torchvision: (image, size) => middleOf(image, size, toEven((size * 342) / 299), BILINEAR),
};

// The shorter side to `shorter` pixels, then the middle; of an image more than eight times as long as wide, its middle.
function middleOf(image, size, shorter, filter) {
    const least = Math.min(image.width, image.height);
    const top = Math.max(0, Math.floor((image.height - 8 * least) / 2));
    const left = Math.max(0, Math.floor((image.width - 8 * least) / 2));
    const part = cropped(image, left, top, image.width - 2 * left, image.height - 2 * top);
    const wide = Math.trunc((shorter * part.width) / least), tall = Math.trunc((shorter * part.height) / least);
    const all = scaled(part, wide, tall, filter, [0, 0, part.width, part.height]);
    return cropped(all, toEven((wide - size) / 2), toEven((tall - size) / 2), size, size);
}

function toEven(value) { // as Python's round
    const below = Math.floor(value);
    return value - below === 0.5 ? below + (below % 2) : Math.round(value);
}

function cropped(image, left, top, width, height) {
    if (width === image.width && height === image.height) return image;
    const {channels} = image, levels = new Uint8ClampedArray(width * height * channels);
    for (let row = 0; row < height; row++) {
        const start = ((top + row) * image.width + left) * channels;
        levels.set(image.levels.subarray(start, start + width * channels), row * width * channels);
    }
    return {width, height, channels, levels};
}

// The part of an image inside a box; the order of the two passes is that of resizing.py.
function scaled(image, width, height, filter, [left, top, right, bottom]) {
    const columnsFirst = image.height > height && image.height - height > 2 * (image.width - width);
    if (columnsFirst) return alongRows(alongColumns(image, height, filter, top, bottom), width, filter, left, right);
    return alongColumns(alongRows(image, width, filter, left, right), height, filter, top, bottom);
}

function alongRows(image, width, filter, start, end) {
    const {height, channels, levels} = image, made = new Uint8ClampedArray(3 * width * height);
    const {first, count, weights, most} = weightsOf(image.width, width, filter, start, end);
    const taken = {step: channels, weights};
    for (let y = 0, out = 0; y < height; y++) {
        const row = y * image.width * channels;
        for (let x = 0; x < width; x++, out += 3) {
            blend(levels, row + first[x] * channels, taken, x * most, count[x], made, out);
        }
    }
    return {width, height, channels: 3, levels: made};
}

function alongColumns(image, height, filter, start, end) {
    const {width, channels, levels} = image, made = new Uint8ClampedArray(3 * width * height);
    const {first, count, weights, most} = weightsOf(image.height, height, filter, start, end);
    const taken = {step: width * channels, weights};
    for (let y = 0, out = 0; y < height; y++) {
        const row = first[y] * width * channels;
        for (let x = 0; x < width; x++, out += 3) {
            blend(levels, row + x * channels, taken, y * most, count[y], made, out);
        }
    }
    return {width, height, channels: 3, levels: made};
}

// One pixel: the weighted sum of `count` pixels from `place` on. The array itself cuts what is below 0 or above 255.
function blend(levels, place, {step, weights}, start, count, made, out) {
    let red = 1 << (PRECISION - 1), green = red, blue = red;
    for (let i = 0; i < count; i++, place += step) {
        const weight = weights[start + i];
        red += levels[place] * weight;
        green += levels[place + 1] * weight;
        blue += levels[place + 2] * weight;
    }
    made[out] = red >> PRECISION;
    made[out + 1] = green >> PRECISION;
    made[out + 2] = blue >> PRECISION;
}

// For each of `size` results: the first level that counts, how many do, and their weights, `most` places apart.
function weightsOf(length, size, filter, start, end) {
    const scale = (end - start) / size, wide = Math.max(scale, 1), support = filter.support * wide;
    const most = Math.ceil(support) * 2 + 1, inverse = 1 / wide;
    const first = new Int32Array(size), count = new Int32Array(size), weights = new Int32Array(size * most);
    for (let i = 0; i < size; i++) {
        const centre = start + (i + 0.5) * scale;
        const low = Math.max(Math.trunc(centre - support + 0.5), 0);
        const high = Math.min(Math.trunc(centre + support + 0.5), length);
        const found = Array.from({length: high - low}, (_, j) => filter.weight((low + j - centre + 0.5) * inverse));
        const sum = found.reduce((total, weight) => total + weight, 0);
        found.forEach((weight, j) => {
            const whole = (weight / sum) * 2 ** PRECISION;
            weights[i * most + j] = Math.trunc(whole + (whole < 0 ? -0.5 : 0.5));
        });
        first[i] = low;
        count[i] = high - low;
    }
    return {first, count, weights, most};
}
