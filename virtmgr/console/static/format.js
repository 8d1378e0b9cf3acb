// Values as people read them, as formatting.py writes them in pages.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Bytes with the largest unit that keeps at least one whole: 1.5 GiB. */
export function amount(bytes) {
  let [value, unit] = [bytes, 0];
  while (Math.abs(value) >= 1024 && unit < UNITS.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${unit ? value.toFixed(1).replace(/\.0$/, "") : value.toFixed(0)} ${UNITS[unit]}`;
}

const SPANS = [[31536000, "y"], [86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

/** A duration in its two largest units at most: 3 min, 2 d 4 h; as formatting.py has it. */
export function span(seconds) {
  let rest = Math.floor(Math.abs(seconds));
  const words = [];
  for (const [length, unit] of SPANS) {
    const count = Math.floor(rest / length);
    rest %= length;
    if (count) words.push(`${count} ${unit}`);
    if (words.length && (words.length === 2 || length <= 60)) break;
  }
  return words.join(" ") || "0 s";
}
