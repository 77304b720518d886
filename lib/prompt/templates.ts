import { createHash } from 'node:crypto';
import { readFile, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { LRUCache } from 'lru-cache';
import { makeDirectory, replaceText } from '../files.js';
import type { Model } from '../native/model.js';
import { findBreakpoints } from './breakpoints.js';
import type { Renderer, TemplateSource } from './renderer.js';
import { type Boundary, type BoundaryHint, findBoundary, findKnownBoundary } from './template-boundary.js';

/** Templates remembered in this process: a session with a known system prompt and tools renders nothing. */
const MAX_REMEMBERED = 256;

/** Bump when the meaning of a lesson changes. */
const LESSON_FORMAT = 2;

/**
 * Turns a system prompt and tools into template tokens, and remembers: the tokens in this process, what the probes taught
 * about the chat template also in the cache directory.
 */
export class Templates {
  readonly #model: Model;
  readonly #renderer: Renderer;
  readonly #fingerprint: string;
  readonly #directory: string | undefined;
  readonly #withBreakpoints: boolean;
  readonly #remembered = new LRUCache<string, Promise<Boundary>>({ max: MAX_REMEMBERED });

  /**
   * @param directory where lessons are kept; undefined keeps none
   * @param withBreakpoints whether to look for places inside templates that others may share
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
   * The template that sessions with this system prompt and these tools start from.
   *
   * @throws HeadstartError as {@link Renderer.prompt}.
   */
  find(source: TemplateSource): Promise<Boundary> {
    const name = this.#name(source);
    let boundary = this.#remembered.get(name);
    if (boundary === undefined) {
      boundary = this.#search(source);
      boundary.catch(() => this.#remembered.delete(name));
      this.#remembered.set(name, boundary);
    }
    return boundary;
  }

  /** A conversation did not begin with what was found: the next search probes again. */
  forget(source: TemplateSource): void {
    this.#remembered.delete(this.#name(source));
    const lesson = this.#lessonPath(source);
    if (lesson !== undefined) {
      rm(lesson, { force: true }).catch(() => undefined);
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

  async #searchEnd(source: TemplateSource): Promise<Boundary> {
    const controlTokens = this.#model.controlTokens();
    const lesson = this.#lessonPath(source);
    const known = lesson === undefined ? undefined : await readLesson(lesson);
    if (known !== undefined) {
      return findKnownBoundary(this.#renderer, source, controlTokens, known);
    }
    const boundary = await findBoundary(this.#renderer, source, controlTokens);
    if (lesson !== undefined && boundary.lesson !== undefined) {
      await writeLesson(lesson, boundary.lesson);
    }
    return boundary;
  }

  /** A lesson holds for a chat template and vocabulary, with or without a system prompt and tools. */
  #lessonPath(source: TemplateSource): string | undefined {
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

async function readLesson(path: string): Promise<BoundaryHint | undefined> {
  try {
    const { format, controlTokens, tokens } = JSON.parse(await readFile(path, 'utf8')) as Partial<
      BoundaryHint & { format: number }
    >;
    return format === LESSON_FORMAT && isCount(controlTokens) && isCount(tokens)
      ? { controlTokens, tokens }
      : undefined;
  } catch {
    return undefined; // none yet, or damaged: learn it again
  }
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

async function writeLesson(path: string, lesson: BoundaryHint): Promise<void> {
  try {
    await makeDirectory(dirname(path), 0o700);
    await replaceText(path, JSON.stringify({ format: LESSON_FORMAT, ...lesson }), { durable: false });
  } catch {
    // A hint only saves milliseconds: it is worth no failure.
  }
}
