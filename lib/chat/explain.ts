// Explains what a request would reuse now. For two requests, explains where their prompts begin to differ.
import { orAborted, throwIfAborted } from '../abort.js';
import { type CacheReport, cacheReport, type PromptPlace } from '../cache/cache-report.js';
import { HeadstartError } from '../errors.js';
import { SpanFinder } from '../prompt/span-finder.js';
import { commonPrefixLength } from '../tokens.js';
import { CHAT_OPTIONS, type ChatRequest, type FirstPrompt, firstPrompt, requestSequence } from './chat.js';
import type { ChatHost } from './chat-host.js';
import { partOf, placeInPrompt, textAt, textInFrontOf } from './prompt-places.js';
import { type ReplyLimits, readLimits } from './reply-run.js';

/** What a request would reuse now, and why not more. */
export interface RequestExplanation extends Omit<CacheReport, 'ms' | 'difference'> {
  /** Tokens of the request's prompt. */
  promptTokens: number;
  /** As in {@link CacheReport}, with the text on both sides. */
  difference?: PromptPlace & {
    /** The text in front of the difference. The prompt and the nearest stored prefix share this text. */
    before: string;
    /** The text of the nearest stored prefix at the difference. Empty if the prefix ends there or is in a file. */
    storedText: string;
  };
}

/** Where the prompts of two requests part. */
export interface PromptComparison {
  /** Tokens of the two prompts. */
  promptTokens: readonly [number, number];
  /** Tokens that both prompts begin with. */
  sharedTokens: number;
  /** The result in one sentence. */
  reason: string;
  /** The first difference. Absent if the prompts are equal. */
  difference?: {
    /** The text in front of the difference, which both prompts share. */
    before: string;
    /** The place in the prompt of the first request. */
    first: PromptPlace;
    /** The place in the prompt of the second request. */
    second: PromptPlace;
  };
}

/** @throws HeadstartError as `AgentServer.explain`. */
export async function explainRequest(
  host: ChatHost,
  request: ChatRequest,
  closing: AbortSignal,
): Promise<RequestExplanation> {
  const limits = readLimits(request, CHAT_OPTIONS, closing);
  return unlessEnded(limits, async () => {
    const contents = await firstPrompt(host, request, limits);
    const { tokens } = contents.prompt;
    const sequence = requestSequence(host, request, await host.templates.find(contents.source));
    const { prefix, nearest } = await sequence.peek(tokens);
    const report = cacheReport(prefix, tokens.length, (index) => placeInPrompt(host.model, contents, index));
    const { difference, ...rest } = report;
    if (difference === undefined) {
      return { promptTokens: tokens.length, ...rest };
    }
    const place = await withPart(host, contents, difference);
    const before = textInFrontOf(host.model, tokens, place.index);
    const storedText = textAt(host.model, nearest?.tokens ?? new Int32Array(), place.index);
    return { promptTokens: tokens.length, ...rest, difference: { ...place, before, storedText } };
  });
}

/** @throws HeadstartError as `AgentServer.explain`. */
export async function comparePrompts(
  host: ChatHost,
  requests: readonly [ChatRequest, ChatRequest],
  closing: AbortSignal,
): Promise<PromptComparison> {
  const first = readLimits(requests[0], CHAT_OPTIONS, closing);
  const second = readLimits(requests[1], CHAT_OPTIONS, closing);
  return unlessEnded(first, () =>
    unlessEnded(second, async () => {
      const a = await firstPrompt(host, requests[0], first);
      const b = await firstPrompt(host, requests[1], second);
      const [tokens, others] = [a.prompt.tokens, b.prompt.tokens];
      const shared = commonPrefixLength(tokens, others);
      const promptTokens = [tokens.length, others.length] as const;
      const isEqual = shared === tokens.length && shared === others.length;
      const reason = [
        isEqual ? 'the prompts are equal' : `the prompts differ at token ${shared}`,
        ...(requests[0].tenant === requests[1].tenant ? [] : ['the requests share nothing: their tenants differ']),
      ].join('; ');
      if (isEqual) {
        return { promptTokens, sharedTokens: shared, reason };
      }
      const placeIn = (contents: FirstPrompt) => withPart(host, contents, placeInPrompt(host.model, contents, shared));
      const difference = {
        before: textInFrontOf(host.model, tokens, shared),
        first: await placeIn(a),
        second: await placeIn(b),
      };
      return { promptTokens, sharedTokens: shared, reason, difference };
    }),
  );
}

/** Adds the part of the prompt to a place that the quick search could not name. Renders the conversation again. */
async function withPart(
  { model, renderer }: ChatHost,
  contents: FirstPrompt,
  place: PromptPlace,
): Promise<PromptPlace> {
  const { prompt, source, messages, options } = contents;
  if (place.part !== undefined || place.index >= prompt.tokens.length) {
    return place;
  }
  const rendered = await renderer.tokens(source, messages, options);
  if (commonPrefixLength(rendered.tokens, prompt.tokens) <= place.index) {
    return place; // sampled replies in front of this token differ from the rendered ones
  }
  const spans = await new SpanFinder(model, renderer).find(source, messages, options);
  const parts = { system: [spans.system], tool: spans.tools, message: spans.messages };
  for (const part of ['message', 'tool', 'system'] as const) {
    const index = parts[part].findIndex((span) => span && span.from <= place.index && place.index < span.to);
    if (index !== -1) {
      return { ...place, ...partOf({ part, index }, contents) };
    }
  }
  return place;
}

/** @throws HeadstartError `ABORTED` or `CLOSED` as soon as the request is aborted or the agent is closed. */
async function unlessEnded<Result>({ signal, closing }: ReplyLimits, work: () => Promise<Result>): Promise<Result> {
  throwIfAborted(signal);
  try {
    return await orAborted(work(), signal);
  } catch (error) {
    throw closing.aborted
      ? new HeadstartError('CLOSED', 'The agent was closed during explain()', { cause: error })
      : error;
  }
}
