// Splits the output of an MCP server into lines, and limits the memory for them.

/** Maximum length of a message, over stdio and over HTTP. A longer message is dropped, and its request fails. */
export const MAX_MESSAGE_BYTES = 32 * 1024 ** 2;
/** Number of bytes to keep at each end of a longer line. These bytes are enough to find the id of the message. */
const EDGE_BYTES = 1024;

const NEWLINE = 10;

export interface Line {
  text: string;
  /** Whether the line is longer than {@link MAX_MESSAGE_BYTES}. `text` is then its beginning and its end. */
  isTooLong: boolean;
}

/** Splits chunks into lines. Each byte is scanned once. */
export class LineReader {
  #pieces: Uint8Array[] = [];
  #bytes = 0;

  /** @returns the lines that the chunk completes */
  push(chunk: Uint8Array): Line[] {
    const lines: Line[] = [];
    let from = 0;
    for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, from)) {
      this.#add(chunk.subarray(from, end));
      lines.push(this.end());
      from = end + 1;
    }
    this.#add(chunk.subarray(from));
    return lines;
  }

  /** @returns the bytes since the last line, as a line */
  end(): Line {
    const line = {
      text: Buffer.concat(this.#pieces).toString('utf8').replace(/\r$/, ''),
      isTooLong: this.#bytes > MAX_MESSAGE_BYTES,
    };
    this.#pieces = [];
    this.#bytes = 0;
    return line;
  }

  #add(piece: Uint8Array): void {
    this.#pieces.push(piece);
    this.#bytes += piece.length;
    if (this.#bytes > MAX_MESSAGE_BYTES) {
      const all = Buffer.concat(this.#pieces);
      this.#pieces = [Buffer.from(all.subarray(0, EDGE_BYTES)), Buffer.from(all.subarray(-EDGE_BYTES))];
    }
  }
}

const VERSION = String.raw`"jsonrpc"\s*:\s*"2\.0"`;
const ID = String.raw`"id"\s*:\s*(\d+)`;
const ID_AT_BEGINNING = new RegExp(String.raw`^\s*\{\s*(?:${VERSION}\s*,\s*)?${ID}`);
const ID_AT_END = new RegExp(String.raw`${ID}\s*(?:,\s*${VERSION}\s*)?\}\s*$`);

/** Finds the id of a response whose middle part was dropped. Servers write the id before or after the result. */
export function idInEdges(text: string): number | undefined {
  const match = ID_AT_BEGINNING.exec(text) ?? ID_AT_END.exec(text);
  return match === null ? undefined : Number(match[1]);
}
