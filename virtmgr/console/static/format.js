// Values as people read them, as formatting.py writes them in pages.

/** Bytes with the largest unit that keeps at least one whole: 1.5 GiB. */
export function amount(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  for (; bytes >= 1024 && at < units.length - 1; at++) bytes /= 1024;
  return `${at ? bytes.toFixed(1) : bytes} ${units[at]}`;
}
