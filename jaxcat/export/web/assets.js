// The files that the page needs: kept in the page itself (gzip, in base64), or beside it.

export async function asset(name) {
    const kept = document.getElementById(name);
    if (kept) return unpacked(kept);
    const answer = await fetch(name);
    if (!answer.ok) throw new Error(`${name}: the server answers ${answer.status}`);
    return new Uint8Array(await answer.arrayBuffer());
}

async function unpacked(element) {
    const text = atob(element.textContent), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    element.remove(); // its text is no longer needed
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
}
