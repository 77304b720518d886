// Formats quantities for the results and notes of commands.

export const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;

/** A number of bytes in a fitting unit: `34.6 MB`. */
export function bytesText(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  const power = Math.min(units.length - 1, bytes < 1 ? 0 : Math.floor(Math.log10(bytes) / 3));
  const count = bytes / 1000 ** power;
  return `${power === 0 ? count : count.toFixed(count < 100 ? 1 : 0)} ${units[power]}`;
}

/** A duration in a fitting unit: `840 ms`, `5.3 s`, `2 min 10 s`. */
export function durationText(ms: number): string {
  if (ms < 1000) {
    return `${ms > 0 && ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  }
  const seconds = ms / 1000;
  if (seconds < 100) {
    return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  }
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

/** A number with separators: `20,000`. */
export const countText = (count: number): string => count.toLocaleString('en-US');

/** A local date and time: `2026-11-30 02:35`. */
export function dateText(date: Date | undefined): string {
  if (date === undefined) {
    return 'never';
  }
  const two = (part: number) => String(part).padStart(2, '0');
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}`;
}
