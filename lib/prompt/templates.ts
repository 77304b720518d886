import { createHash } from 'node:crypto';
import { readFile, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { LRUCache } from 'lru-cache';
import { makeDirectory, replaceText } from '../files.js';
import type { Model } from '../native/model.js';
import { remembered } from '../remembered.js';
import { findBreakpoints } from './breakpoints.js';
import { toolsInHead } from './deferred-tools.js';
import type { Renderer, TemplateSource } from './renderer.js';
import { type Boundary, type BoundaryHint, findBoundary, findBoundaryWithHint } from './template-boundary.js';

/** The maximum number of templates kept in memory. For a template in memory, a new session renders nothing. */
const MAX_REMEMBERED = 256;

const NO_HINTS: readonly number[] = [];

/** A breakpoint that a request asks for must save the prefill of this many tokens. */
const MIN_HINTED_TOKENS = 256;

/** Increase this number when the meaning of a hint changes. */
const HINT_FORMAT = 2;

/**
 * Converts a system prompt and tools to the tokens of a template. Keeps the tokens in memory, and the boundary hints in
 * the cache directory.
 */
export class Templates {
  readonly #model: Model;
  readonly #renderer: Renderer;
  readonly #fingerprint: string;
  readonly #directory: string | undefined;
  readonly #withBreakpoints: boolean;
  readonly #remembered = new LRUCache<string, Promise<Boundary>>({ max: MAX_REMEMBERED });
  /**
   * Settles when forgotten hints are deleted. A search waits for this promise, so that it does not read these hints.
   */
  #deleting: Promise<unknown> = Promise.resolve();

  /**
   * @param directory the directory of hints. With undefined, no hints are stored.
   * @param withBreakpoints whether to look for the positions inside a template at which other templates may differ
   */
  constructor(
    model: Model,
    renderer: Renderer,
    fingerprint: string,
    directory: string | undefined,
    withBreakpoints = false,
  ) {
    this.#model = model;
    this.#renderer = renderer;
    this.#fingerprint = fingerprint;
    this.#directory = directory;
    this.#withBreakpoints = withBreakpoints;
  }

  /**
   * The template of sessions with this system prompt and these tools.
   *
   * @param hinted the numbers of tools after which a request asks for a breakpoint, ascending
   * @throws HeadstartError as {@link Renderer.prompt}.
   */
  find({ systemPrompt, tools = [] }: TemplateSource, hinted: readonly number[] = NO_HINTS): Promise<Boundary> {
    const source = { systemPrompt, tools: toolsInHead(tools) };
    const name = `${this.#name(source)}${hinted}`;
    return remembered(this.#remembered, name, () =>
      hinted.length === 0 ? this.#search(source) : this.#searchHinted(source, hinted),
    );
  }

  /** Call this if a conversation did not begin with its template. The next search probes again. */
  forget({ systemPrompt, tools = [] }: TemplateSource): void {
    const source = { systemPrompt, tools: toolsInHead(tools) };
    this.#remembered.delete(this.#name(source));
    const path = this.#hintPath(source);
    if (path !== undefined) {
      this.#deleting = Promise.all([this.#deleting, rm(path, { force: true }).catch(() => undefined)]);
    }
  }

  #name(source: TemplateSource): string {
    const today = this.#renderer.usesClock ? new Date().toDateString() : '';
    return sha256(JSON.stringify([source.systemPrompt ?? null, source.tools ?? [], today]));
  }

  async #search(source: TemplateSource): Promise<Boundary> {
    const boundary = await this.#searchEnd(source);
    return this.#withBreakpoints && boundary.tokens.length > 0
      ? { ...boundary, breakpoints: await findBreakpoints(this.#renderer, source, boundary.tokens) }
      : boundary;
  }

  async #searchHinted(source: TemplateSource, hinted: readonly number[]): Promise<Boundary> {
    const boundary = await this.find(source);
    const { tokens, breakpoints = [] } = boundary;
    const found = await findBreakpoints(this.#renderer, source, tokens, hinted);
    const all = new Set([...breakpoints, ...found.filter((position) => position >= MIN_HINTED_TOKENS)]);
    return { ...boundary, breakpoints: [...all].sort((a, b) => a - b) };
  }

  async #searchEnd(source: TemplateSource): Promise<Boundary> {
    const controlTokens = this.#model.controlTokens();
    await this.#deleting;
    const path = this.#hintPath(source);
    const hint = path === undefined ? undefined : await readHint(path);
    if (hint !== undefined) {
      return findBoundaryWithHint(this.#renderer, source, controlTokens, hint);
    }
    const boundary = await findBoundary(this.#renderer, source, controlTokens);
    if (path !== undefined && boundary.hint !== undefined) {
      await writeHint(path, boundary.hint);
    }
    return boundary;
  }

  /**
   * The file of a hint. A hint is valid for one model and chat template. Templates with and without a system prompt,
   * and with and without tools, have separate hints.
   */
  #hintPath(source: TemplateSource): string | undefined {
    if (this.#directory === undefined) {
      return undefined;
    }
    const parts = [
      this.#fingerprint,
      this.#renderer.chatTemplate,
      source.systemPrompt !== undefined,
      (source.tools ?? []).length > 0,
    ];
    return join(this.#directory, `boundary_${sha256(JSON.stringify(parts)).slice(0, 16)}.json`);
  }
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

async function readHint(path: string): Promise<BoundaryHint | undefined> {
  try {
    const { format, controlTokens, tokens } = JSON.parse(await readFile(path, 'utf8')) as Partial<
      BoundaryHint & { format: number }
    >;
    return format === HINT_FORMAT && isCount(controlTokens) && isCount(tokens) ? { controlTokens, tokens } : undefined;
  } catch {
    return undefined; // the hint is missing or damaged: the search writes a new one
  }
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

async function writeHint(path: string, hint: BoundaryHint): Promise<void> {
  try {
    await makeDirectory(dirname(path), 0o700);
    await replaceText(path, JSON.stringify({ format: HINT_FORMAT, ...hint }), { durable: false });
  } catch {
    // A hint only saves milliseconds, so a failure to write it is ignored.
  }
}
