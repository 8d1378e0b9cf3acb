// Values as people read them, as formatting.py writes them in pages.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Bytes with the largest unit that keeps at least one whole: 1.5 GiB. */
export function amount(bytes) {
  let [value, unit] = [bytes, 0];
  while (Math.abs(value) >= 1024 && unit < UNITS.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${unit ? value.toFixed(1).replace(/\.0$/, "") : value.toFixed(0)} ${UNITS[unit]}`;
}
