// Tar archives (POSIX.1-2001, ustar with pax paths) as Blobs of the files themselves.

const BLOCK = 512;
const LARGEST = 8 ** 11; // bytes that a size field has room for in octal digits
const encoder = new TextEncoder();

/** entries: [{name, file}]; a folder has no file. */
export function archive(entries) {
  const parts = [];
  for (const { name, file } of entries) {
    const path = file ? name : `${name.replace(/\/+$/, "")}/`;
    const bytes = encoder.encode(path);
    if (bytes.length > 100) parts.push(...pax("path", path));
    parts.push(header(bytes.subarray(0, 100), file ? file.size : 0, file ? "0" : "5", file ? 0o644 : 0o755, modified(file)));
    if (file) parts.push(file, padding(file.size));
  }
  parts.push(new Uint8Array(2 * BLOCK));
  return new Blob(parts);
}

/** All that is below what was dropped. */
export async function walk(entry, above = "") {
  const name = above + entry.name;
  if (entry.isFile) {
    const file = await new Promise((done, failed) => entry.file(done, failed));
    return [{ name, file }];
  }
  const reader = entry.createReader();
  const found = [{ name, file: null }];
  for (;;) {
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) return found;
    for (const one of some) found.push(...(await walk(one, `${name}/`)));
  }
}

function modified(file) {
  return Math.floor((file ? file.lastModified : Date.now()) / 1000);
}

function padding(size) {
  return new Uint8Array((BLOCK - (size % BLOCK)) % BLOCK);
}

/** A record that says what has no room in the header after it. */
function pax(keyword, value) {
  const rest = encoder.encode(` ${keyword}=${value}\n`);
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  const record = new Uint8Array([...encoder.encode(String(length)), ...rest]);
  return [header(encoder.encode("pax"), record.length, "x", 0o644, 0), record, padding(record.length)];
}

function header(name, size, type, mode, time) {
  const block = new Uint8Array(BLOCK);
  const put = (at, text) => block.set(encoder.encode(text), at);
  const octal = (number, digits) => number.toString(8).padStart(digits, "0");
  block.set(name, 0);
  put(100, `${octal(mode, 7)}\0`);
  put(108, `${octal(0, 7)}\0`);
  put(116, `${octal(0, 7)}\0`);
  if (size < LARGEST) put(124, `${octal(size, 11)}\0`);
  else {
    block[124] = 0x80; // GNU's way: a binary number
    new DataView(block.buffer).setBigUint64(128, BigInt(size));
  }
  put(136, `${octal(time, 11)}\0`);
  put(148, "        ");
  put(156, type);
  put(257, "ustar\x0000");
  const sum = block.reduce((total, byte) => total + byte, 0);
  put(148, `${octal(sum, 6)}\0 `);
  return block;
}
