import { randomUUID } from 'node:crypto';
import type { StartReport } from '../cache/report.js';
import type { TemplateCache } from '../cache/template-cache.js';
import type { Engine } from '../engine/engine.js';
import type { Gate } from '../engine/gate.js';
import type { SequenceHolder } from '../engine/sequences.js';
import { HeadstartError } from '../errors.js';
import { throwIfAborted } from '../native/addon.js';
import type { Model } from '../native/model.js';
import { checkOptions } from '../options.js';
import type { ChatMessage, Renderer, TemplateSource } from '../template/render.js';
import { commonPrefixLength, isPrefix } from '../template/tokens.js';
import type { Reply, SendOptions, StreamPart, Usage } from './parts.js';

/** What sessions of one agent share. */
export interface SessionServices {
  model: Model;
  engine: Engine;
  cache: TemplateCache;
  renderer: Renderer;
  contextSize: number;
  /** Turns pass it. */
  gate: Gate;
}

export interface SessionSetup {
  source: TemplateSource;
  /** The template's tokens; empty where conversations share none. */
  template: Int32Array;
  /** Why `template` is empty. */
  templateReason?: string | undefined;
  useCache: boolean;
  /** Whose entries serve it. */
  tenant?: string | undefined;
  /** Where the template's prefill is cut, and its heads kept. */
  breakpoints?: readonly number[] | undefined;
  signal?: AbortSignal | undefined;
  /** The template was not how the first prompt began. */
  onMismatch: (source: TemplateSource) => void;
  onClosed: (session: Session) => void;
}

/** A stream that nobody reads from for so long lets others have its sequence. */
const STALLED_MS = 1000;

/**
 * A conversation. It holds a sequence while one is to be had; while idle it may lose it to another session, and comes back
 * from its template and its own messages.
 */
export class Session implements SequenceHolder {
  readonly id: string = randomUUID();
  readonly #services: SessionServices;
  readonly #setup: SessionSetup;
  readonly #closing = new AbortController();
  readonly #messages: ChatMessage[] = [];
  /** The tokens in the sequence, by position. */
  #held: number[] = [];
  #sequence: number | undefined;
  #report!: StartReport;
  /** The step of a turn that runs now. A turn whose consumer does not ask for more runs none, and holds up nobody. */
  #step: Promise<unknown> | undefined;
  #mismatched = false;
  #inTurn = false;
  /** Its sequence is in use: false between turns, and while nobody reads on from a stream. */
  #busy = true;

  private constructor(services: SessionServices, setup: SessionSetup) {
    this.#services = services;
    this.#setup = setup;
  }

  /** @internal */
  static async start(services: SessionServices, setup: SessionSetup, begin: number): Promise<Session> {
    const session = new Session(services, setup);
    try {
      session.#sequence = await services.engine.sessions.lease(session, setup.signal);
      session.#report = await session.#startFromTemplate(setup.signal);
      session.#report.ms = performance.now() - begin;
      return session;
    } catch (error) {
      session.#release();
      throw error;
    } finally {
      session.#setBusy(false);
    }
  }

  /** How this session's start went. */
  get report(): Readonly<StartReport> {
    return this.#report;
  }

  /** The conversation so far: turns that finished. The system prompt is not among them. */
  get messages(): readonly ChatMessage[] {
    return [...this.#messages];
  }

  /** @internal Whether its sequence is in use right now. */
  get busy(): boolean {
    return this.#busy;
  }

  get closed(): boolean {
    return this.#closing.signal.aborted;
  }

  /** @internal Another session needed the sequence. */
  onEvicted(): void {
    this.#sequence = undefined;
    this.#held = [];
  }

  /**
   * Sends a user message and resolves with the whole reply.
   *
   * @throws HeadstartError as {@link stream}.
   */
  async send(message: string, options: SendOptions = {}): Promise<Reply> {
    let text = '';
    for await (const part of this.stream(message, options)) {
      if (part.type === 'text') {
        text += part.text;
      } else {
        return { text, finishReason: part.reason, usage: part.usage };
      }
    }
    throw new HeadstartError('INTERNAL', 'The stream ended without a finish part');
  }

  /**
   * Sends a user message and yields the reply as it is generated: `text` parts, then one `finish`. A turn that does not
   * finish (aborted, failed, or left by `break`) leaves no trace in `messages`, and the session can be used again.
   *
   * @throws HeadstartError `INVALID_ARGUMENT`, `SESSION_BUSY`, `CLOSED`, `ABORTED`, `CONTEXT_FULL`, and what rendering and
   *   decoding throw.
   */
  async *stream(message: string, options: SendOptions = {}): AsyncGenerator<StreamPart, void, undefined> {
    const maxTokens = checkTurn(message, options);
    this.#requireOpen();
    if (this.#inTurn) {
      throw new HeadstartError(
        'SESSION_BUSY',
        'Expected an idle session, but it is generating: wait for its turn to end',
      );
    }
    this.#inTurn = true;
    this.#setBusy(true);
    const signal = options.signal ? AbortSignal.any([options.signal, this.#closing.signal]) : this.#closing.signal;
    const turn = this.#takeTurn(message, maxTokens, signal);
    let leave: (() => void) | undefined;
    try {
      leave = await this.#services.gate.enter(signal);
      for (;;) {
        const step = turn.next();
        this.#step = step.catch(() => undefined);
        const { done, value } = await step;
        if (done) {
          return;
        }
        // Who does not read on may be waiting, in this very loop, for a sequence: then this one can be had.
        const stalled = setTimeout(() => this.#setBusy(false), STALLED_MS);
        try {
          yield value;
        } finally {
          clearTimeout(stalled);
        }
        this.#setBusy(true);
      }
    } catch (error) {
      throw this.#turnFailure(error);
    } finally {
      leave?.();
      this.#inTurn = false;
      this.#setBusy(false);
    }
  }

  /** Ends a turn that runs and gives the sequence back; the turn's stream throws `CLOSED`. Idempotent. */
  async close(): Promise<void> {
    if (!this.closed) {
      this.#closing.abort(new HeadstartError('CLOSED', 'The session was closed'));
      this.#setup.onClosed(this);
    }
    await this.#step; // no later one gets past the signal
    this.#release();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async *#takeTurn(
    message: string,
    maxTokens: number,
    signal: AbortSignal,
  ): AsyncGenerator<StreamPart, void, undefined> {
    const { model, renderer, contextSize } = this.#services;
    const begin = performance.now();
    throwIfAborted(signal);
    const messages: ChatMessage[] = [...this.#messages, { role: 'user', content: message }];
    const { tokens: prompt } = await renderer.prompt(this.#setup.source, messages);
    if (prompt.length >= contextSize) {
      throw new HeadstartError(
        'CONTEXT_FULL',
        `The conversation has ${prompt.length} tokens and leaves no room for a reply in a context of ${contextSize}: raise \`contextSize\` or start a new session`,
      );
    }
    let { token, cachedTokens } = await this.#decodeAll(prompt, signal);
    const firstTokenMs = performance.now() - begin;

    const decoder = new TextDecoder();
    const generated: number[] = [];
    let text = '';
    let reason: 'stop' | 'length' = 'stop';
    while (!model.isEndOfGeneration(token)) {
      generated.push(token);
      const piece = decoder.decode(model.tokenToBytes(token), { stream: true });
      if (piece !== '') {
        text += piece;
        yield { type: 'text', text: piece };
      }
      if (generated.length >= maxTokens || prompt.length + generated.length >= contextSize) {
        reason = 'length';
        break;
      }
      token = await this.#next(prompt, generated, signal);
    }
    const rest = reason === 'stop' ? decoder.decode() : ''; // a character that `maxTokens` cut in two is left out
    if (rest !== '') {
      text += rest;
      yield { type: 'text', text: rest };
    }
    this.#messages.push(
      Object.freeze({ role: 'user', content: message }),
      Object.freeze({ role: 'assistant', content: text }),
    );
    const completionTokens = generated.length;
    const generationMs = performance.now() - begin - firstTokenMs;
    const tokensPerSecond = completionTokens > 1 ? ((completionTokens - 1) * 1000) / generationMs : 0;
    const usage: Usage = { promptTokens: prompt.length, cachedTokens, completionTokens, firstTokenMs, tokensPerSecond };
    yield { type: 'finish', reason, usage };
  }

  /** Decodes the newest token; where the sequence was lost while nobody read on, all that it held as well. */
  async #next(prompt: Int32Array, generated: readonly number[], signal: AbortSignal): Promise<number> {
    if (this.#sequence !== undefined) {
      try {
        return await this.#decode(Int32Array.of(generated.at(-1) as number), signal);
      } catch (error) {
        this.#forgetPreempted(error);
      }
    }
    const all = new Int32Array(prompt.length + generated.length);
    all.set(prompt);
    all.set(generated, prompt.length);
    return (await this.#decodeAll(all, signal)).token;
  }

  /** Decodes what of these tokens the sequence does not hold; and once more where others needed its cells meanwhile. */
  async #decodeAll(tokens: Int32Array, signal: AbortSignal): Promise<{ token: number; cachedTokens: number }> {
    for (;;) {
      const cachedTokens = await this.#align(tokens, signal);
      try {
        return { token: await this.#decode(tokens.slice(this.#held.length), signal), cachedTokens };
      } catch (error) {
        this.#forgetPreempted(error);
      }
    }
  }

  /** The sequence was emptied for others, and is still this session's. Throws what is another error. */
  #forgetPreempted(error: unknown): void {
    if (!HeadstartError.isInstance(error, 'PREEMPTED')) {
      throw error;
    }
    this.#held = [];
  }

  async #decode(tokens: Int32Array, signal: AbortSignal): Promise<number> {
    const { token } = await this.#services.engine.decode({
      sequence: this.#requireSequence(),
      tokens,
      from: this.#held.length,
      signal,
      onDecoded: (decoded) => {
        for (const each of decoded) {
          this.#held.push(each);
        }
      },
    });
    return token;
  }

  /**
   * Makes the sequence hold a true prefix of the prompt, as long as possible, but at least a token short of it.
   *
   * @returns how many of those tokens did not have to be computed for it
   */
  async #align(prompt: Int32Array, signal: AbortSignal): Promise<number> {
    const { engine } = this.#services;
    this.#checkTemplate(prompt);
    this.#sequence ??= await engine.sessions.lease(this, signal);
    if (this.#held.length === 0) {
      return this.#restart(prompt, signal);
    }
    const shared = Math.min(commonPrefixLength(this.#held, prompt), prompt.length - 1);
    if (shared === this.#held.length) {
      return shared;
    }
    if (engine.canTrim) {
      await engine.context.removeSequence(this.#sequence, shared);
      this.#held.length = shared;
      return shared;
    }
    await engine.context.removeSequence(this.#sequence);
    this.#held = [];
    return this.#restart(prompt, signal);
  }

  /** What was assumed of the chat template may be wrong: the first prompt shows it. */
  #checkTemplate(prompt: Int32Array): void {
    const { source, template, onMismatch } = this.#setup;
    if (this.#messages.length === 0 && !this.#mismatched && !isPrefix(template, prompt)) {
      this.#mismatched = true;
      this.#report.reason = 'the first prompt did not begin with the template';
      this.#services.cache.countPrefixMismatch();
      onMismatch(source);
    }
  }

  /** Puts the template into the empty sequence where the prompt goes on from it; returns what that did not compute. */
  async #restart(prompt: Int32Array, signal: AbortSignal): Promise<number> {
    const { template } = this.#setup;
    if (template.length >= prompt.length || !isPrefix(template, prompt)) {
      return 0;
    }
    return (await this.#startFromTemplate(signal)).cachedTokens;
  }

  async #startFromTemplate(signal: AbortSignal | undefined): Promise<StartReport> {
    const { template, templateReason, useCache, tenant, breakpoints = [] } = this.#setup;
    if (template.length === 0) {
      this.#services.cache.countBypass();
      return {
        tier: 'bypass',
        match: 'none',
        templateTokens: 0,
        cachedTokens: 0,
        bytes: 0,
        ms: 0,
        key: '',
        reason: templateReason ?? 'no template',
      };
    }
    const report = await this.#services.cache.start(this.#requireSequence(), template, {
      cache: useCache,
      tenant,
      breakpoints,
      signal,
    });
    this.#held = [...template];
    return report;
  }

  /**
   * After an abort the sequence is what `#held` says, unless the abort emptied it; after anything else nothing is known of
   * it. `close` releases it itself.
   */
  #turnFailure(error: unknown): unknown {
    if (this.closed) {
      return new HeadstartError('CLOSED', 'The session was closed during its turn', { cause: error });
    }
    if (!HeadstartError.isInstance(error, 'ABORTED') || error.sequences !== undefined) {
      this.#release();
    }
    return error;
  }

  #release(): void {
    if (this.#sequence !== undefined) {
      const sequence = this.#sequence;
      this.onEvicted();
      this.#services.engine.sessions.release(sequence);
    }
  }

  #setBusy(busy: boolean): void {
    this.#busy = busy;
    if (!busy) {
      if (this.#sequence !== undefined) {
        this.#services.engine.sessions.touch(this.#sequence);
      }
      this.#services.engine.sessions.idle();
    }
  }

  #requireOpen(): void {
    if (this.closed) {
      throw new HeadstartError('CLOSED', 'Expected an open session, but it was closed');
    }
  }

  #requireSequence(): number {
    if (this.#sequence === undefined) {
      throw new HeadstartError('CLOSED', 'Expected a session that holds a sequence');
    }
    return this.#sequence;
  }
}

const SEND_CHECKS = {
  maxTokens: (value: unknown) =>
    value === Number.POSITIVE_INFINITY || (Number.isSafeInteger(value) && (value as number) >= 1)
      ? undefined
      : 'an integer from 1 up',
  signal: (value: unknown) => (value instanceof AbortSignal ? undefined : 'an AbortSignal'),
};

/** @returns the most tokens to generate */
function checkTurn(message: string, options: SendOptions): number {
  if (typeof message !== 'string') {
    throw new HeadstartError('INVALID_ARGUMENT', `Expected the message to be a string, got ${typeof message}`);
  }
  checkOptions(options, SEND_CHECKS, 'the send options', 'INVALID_ARGUMENT');
  return options.maxTokens ?? Number.POSITIVE_INFINITY;
}
