// What a file is, by its bytes: why this page does not answer for it, or how its pixels may differ from jaxcat's.
//
// Kinds without a note give jaxcat's levels exactly in Chromium; tests/test_export_web.py compares them. Other browsers
// differ more: scripts/compare_page.py. Chromium gives its name on pages of files, of this machine and over https.

const IN_CHROMIUM = Boolean(navigator.userAgentData?.brands.some(({brand}) => brand === "Chromium"));
const inChromium = (text) => (IN_CHROMIUM ? text : "");
const ROUNDED =
    `Levels may differ${inChromium(" by 1 of 255")}, because this browser rounds colours and transparency at other ` +
    "steps than jaxcat.";
// Chromium 156 differs by 20 levels for AVIF with transparency or several frames; Chromium 150 did not.
const OTHER_DECODER =
    `Levels may differ${inChromium(", some by 20 of 255")}, because this browser reads this format with another ` +
    "decoder than jaxcat.";
const SAVE = "save it as JPEG or PNG";
const CUT_SHORT = "damaged or cut short";
const HIGH_RANGE = `its colours have a high dynamic range: ${SAVE}`;
const PQ = 16, HLG = 18; // transfer functions of ITU-T H.273

const UNREAD = [ // place, beginning, what it is
    [0, "II*\0", `TIFF, which browsers do not read: ${SAVE}`],
    [0, "MM\0*", `TIFF, which browsers do not read: ${SAVE}`],
    [0, "%PDF", "a PDF document"],
    [0, "8BPS", `a Photoshop document: ${SAVE}`],
    [0, "PK\x03\x04", "an archive: unpack it"],
    [0, "\xff\x0a", `JPEG XL: ${SAVE}`],
    [4, "JXL ", `JPEG XL: ${SAVE}`],
    [4, "jP  ", `JPEG 2000: ${SAVE}`],
];

// Returns {kind, problem, note}; problem and note are "" if there is none. `greyBits`: see data.grey_bits.
export function kindOf(bytes, greyBits) {
    if (!bytes.length) return refused("file", "empty");
    if (starts(bytes, 0, "\x89PNG")) return ofPNG(bytes, greyBits);
    if (starts(bytes, 0, "\xff\xd8")) return ofJPEG(bytes);
    if (starts(bytes, 0, "GIF8")) return ofGIF(bytes);
    if (starts(bytes, 0, "RIFF") && starts(bytes, 8, "WEBP")) return ofWebP(bytes);
    if (starts(bytes, 0, "BM")) return ofBMP(bytes);
    if (starts(bytes, 0, "\0\0\x01\0")) return plainInChromium("icon");
    if (starts(bytes, 4, "ftypavi")) return ofAVIF(bytes);
    if (["ftyphei", "ftyphev", "ftypmif", "ftypmsf"].some((mark) => starts(bytes, 4, mark))) {
        return {kind: "HEIC", problem: "", note: OTHER_DECODER};
    }
    const known = UNREAD.find(([place, beginning]) => starts(bytes, place, beginning));
    return refused("file", known ? known[2] : "not a JPEG, PNG, GIF, WebP, AVIF or BMP image");
}

const plain = (kind) => ({kind, problem: "", note: ""});
const roughly = (kind) => ({kind, problem: "", note: ROUNDED});
const plainInChromium = (kind, note = ROUNDED) => ({kind, problem: "", note: IN_CHROMIUM ? "" : note});
const refused = (kind, problem) => ({kind, problem, note: ""});

function starts(bytes, place, text) {
    return [...text].every((letter, i) => bytes[place + i] === letter.charCodeAt(0));
}

function lastUsed(bytes) {
    return bytes.findLastIndex((value) => value !== 0);
}

// Others draw a first frame that is smaller than the image in another way, and blend transparency in another way.
function ofGIF(bytes) {
    return bytes[lastUsed(bytes)] === 0x3b ? plainInChromium("GIF", OTHER_DECODER) : refused("GIF", CUT_SHORT);
}

// Chunks: W3C, Portable Network Graphics, third edition, sections 5 and 11.
function ofPNG(bytes, greyBits) {
    const view = viewOf(bytes), found = new Map();
    for (let place = 8; place + 12 <= bytes.length && !found.has("IEND"); place += 12 + view.getUint32(place)) {
        found.set(String.fromCharCode(...bytes.subarray(place + 4, place + 8)), place + 8);
    }
    if (!found.has("IEND") || found.get("IHDR") !== 16) return refused("PNG", CUT_SHORT);
    if (bytes[24] > 8 && greyBits < 16) {
        return refused("PNG", `16 bits a channel, of which the images of training used ${greyBits}: save it with 8`);
    }
    if ([PQ, HLG].includes(bytes[found.get("cICP") + 1])) return refused("PNG", HIGH_RANGE);
    if (["iCCP", "cICP", "gAMA", "cHRM"].some((name) => found.has(name))) return roughly("PNG");
    const exif = found.get("eXIf");
    if (!IN_CHROMIUM && exif && ![undefined, 1].includes(orientationIn(bytes, exif))) {
        return refused("PNG", `turned by EXIF, which some browsers do not do: ${SAVE}`); // WebKitGTK 2.50 does not
    }
    return found.has("tRNS") || bytes[25] & 4 ? plainInChromium("PNG") : plain("PNG"); // 4: the colour type has alpha
}

// Segments: ITU-T T.81, annex B.
function ofJPEG(bytes) {
    const view = viewOf(bytes);
    let place = 2, profile = false;
    while (place + 4 <= bytes.length && bytes[place] === 0xff && bytes[place + 1] !== 0xda) {
        const marker = bytes[place + 1], alone = marker === 0x01 || (marker >= 0xd0 && marker <= 0xd8);
        profile ||= marker === 0xe2 && starts(bytes, place + 4, "ICC_PROFILE\0");
        place += marker === 0xff ? 1 : alone ? 2 : 2 + view.getUint16(place + 2);
    }
    const ended = bytes.findLastIndex((value, i) => value === 0xd9 && bytes[i - 1] === 0xff);
    if (bytes[place + 1] !== 0xda || ended < place) return refused("JPEG", CUT_SHORT);
    return profile ? roughly("JPEG") : plain("JPEG");
}

// Chunks: RFC 9649.
function ofWebP(bytes) {
    const view = viewOf(bytes), found = new Map();
    if (view.getUint32(4, true) + 8 > bytes.length) return refused("WebP", CUT_SHORT);
    for (let place = 12; place + 8 <= bytes.length; place += 8 + view.getUint32(place + 4, true), place += place % 2) {
        found.set(String.fromCharCode(...bytes.subarray(place, place + 4)), place + 8);
    }
    const exif = found.get("EXIF"), lossless = found.get("VP8L"), extended = found.get("VP8X");
    if (exif && ![undefined, 1].includes(orientationIn(bytes, exif))) {
        return refused("WebP", `turned by EXIF, which browsers do not do: ${SAVE}`);
    }
    const hasAlpha = (extended && bytes[extended] & 0x10) || (lossless && bytes[lossless + 4] & 0x10);
    return hasAlpha || found.has("ICCP") ? roughly("WebP") : plain("WebP");
}

// EXIF 2.3, section 4.6.2: the tag 0x0112 of TIFF data; undefined if there is none.
function orientationIn(bytes, start) {
    const view = viewOf(bytes), begin = starts(bytes, start, "Exif\0\0") ? start + 6 : start;
    const little = bytes[begin] === 0x49;
    try {
        const directory = begin + view.getUint32(begin + 4, little);
        for (let i = 0; i < view.getUint16(directory, little); i++) {
            const entry = directory + 2 + 12 * i;
            if (view.getUint16(entry, little) === 0x0112) return view.getUint16(entry + 8, little);
        }
    } catch (error) {
        if (!(error instanceof RangeError)) throw error; // damaged metadata around a good image
    }
    return undefined;
}

function ofBMP(bytes) {
    const view = viewOf(bytes);
    if (bytes.length < 30 || view.getUint32(10, true) >= bytes.length) return refused("BMP", CUT_SHORT);
    const bits = view.getUint16(28, true);
    return bits === 16 ? roughly("BMP") : bits === 32 ? plainInChromium("BMP") : plain("BMP");
}

// ISO/IEC 14496-12: a box "colr" of the kind "nclx" has primaries and the transfer function, 16 bits each.
function ofAVIF(bytes) {
    const end = Math.min(bytes.length, 65536);
    for (let place = 0; place + 12 < end; place++) {
        if (bytes[place] === 0x63 && starts(bytes, place, "colrnclx") && [PQ, HLG].includes(bytes[place + 11])) {
            return refused("AVIF", HIGH_RANGE);
        }
    }
    return {kind: "AVIF", problem: "", note: OTHER_DECODER};
}

function viewOf(bytes) {
    return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
