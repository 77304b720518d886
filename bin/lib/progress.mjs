// Prints one line per step to stderr, because a script prints its result to stdout (`npm run --silent demo -- --json`).

const BAR_WIDTH = 24;
const ANNOUNCE_AFTER_MS = 1000;
const REDRAW_EVERY_MS = 100;

const isLive = process.stderr.isTTY === true && process.env.TERM !== 'dumb' && !process.env.CI;

/**
 * A step of a script. On a terminal the step updates its line in place and shows a progress bar and the remaining time.
 * If stderr is no terminal, the step prints a new line about every 10 %. The last line is "✓ name (3.2 s)".
 */
export class Step {
  #name;
  #quiet;
  #stream;
  #live;
  #started = performance.now();
  #announce;
  #announced = false;
  #drawnAt = 0;
  #printedTenth = 0;

  /**
   * @param {string} name
   * @param {object} [options]
   * @param {boolean} [options.quiet] print nothing if the step takes less than a second
   * @param {NodeJS.WritableStream & { columns?: number }} [options.stream] default: stderr
   * @param {boolean} [options.live] whether the stream is a terminal on which a line can be replaced
   */
  constructor(name, { quiet = false, stream = process.stderr, live = isLive } = {}) {
    this.#name = name;
    this.#quiet = quiet;
    this.#stream = stream;
    this.#live = live;
    this.#announce = setTimeout(() => this.#show(''), ANNOUNCE_AFTER_MS);
    this.#announce.unref();
  }

  /**
   * @param {{ fraction?: number, detail?: string }} state fraction: 0 to 1, undefined if unknown; detail: "58/131"
   */
  update({ fraction, detail = '' }) {
    if (fraction === undefined) return this.#show(detail);
    const done = Math.min(1, Math.max(0, fraction));
    const now = performance.now();
    const left = done > 0.02 && done < 1 ? `  ${duration(((now - this.#started) * (1 - done)) / done)} left` : '';
    const percent = `${Math.floor(done * 100)} %`;
    if (this.#live) {
      if (now - this.#drawnAt < REDRAW_EVERY_MS && done < 1) return;
      const full = Math.round(done * BAR_WIDTH);
      this.#rewrite(`… ${this.#name} ${'█'.repeat(full)}${'░'.repeat(BAR_WIDTH - full)} ${percent}  ${detail}${left}`);
    } else if (Math.floor(done * 10) > this.#printedTenth) {
      this.#printedTenth = Math.floor(done * 10);
      this.#print(`… ${this.#name}: ${percent}  ${detail}${left}`);
    }
  }

  /** Prints a separate line that stays on the terminal. @param {string} text */
  note(text) {
    this.#print(`  ${text}`);
  }

  /**
   * @param {string} [note] describes the result
   * @param {string} [symbol]
   */
  done(note, symbol = '✓') {
    const ms = performance.now() - this.#started;
    this.#stop();
    if (this.#quiet && !this.#announced && ms < ANNOUNCE_AFTER_MS) return;
    this.#print(`${symbol} ${this.#name}${note ? `: ${note}` : ''} (${duration(ms)})`);
  }

  fail() {
    this.#stop();
    this.#print(`✗ ${this.#name} (${duration(performance.now() - this.#started)})`);
  }

  #stop() {
    clearTimeout(this.#announce);
  }

  /** @param {string} detail */
  #show(detail) {
    const line = `… ${this.#name}${detail ? `: ${detail}` : ''}`;
    if (this.#live) this.#rewrite(line);
    else if (detail || !this.#announced) this.#print(line);
  }

  /** @param {string} line */
  #rewrite(line) {
    this.#stop();
    this.#announced = true;
    this.#drawnAt = performance.now();
    const width = this.#stream.columns || 80;
    this.#stream.write(`\r\x1b[2K${line.slice(0, width - 1)}`);
  }

  /** @param {string} line */
  #print(line) {
    this.#stop();
    this.#announced = true;
    this.#stream.write(this.#live ? `\r\x1b[2K${line}\n` : `${line}\n`);
  }
}

/**
 * Runs one step. The step's last line starts with ✗ if `work` failed, with – if the result of `work` is null, and else
 * with ✓. Null means that the step has no result and that this is not an error.
 * @template T
 * @param {string} name
 * @param {{ quiet?: boolean }} options
 * @param {(step: Step) => Promise<T>} work
 * @param {(result: T) => string | undefined} [note] describes the result
 * @returns {Promise<T>}
 */
export async function step(name, options, work, note = () => undefined) {
  const current = new Step(name, options);
  try {
    const result = await work(current);
    current.done(note(result), result === null ? '–' : '✓');
    return result;
  } catch (error) {
    current.fail();
    throw error;
  }
}

/** @param {number} ms */
export function duration(ms) {
  const seconds = ms / 1000;
  if (seconds < 1) return `${Math.round(ms)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  return whole < 100 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/** @param {number} bytes */
export const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
