// Where a template ends: found by rendering, not assumed. See docs/design/template-cache.md, "The boundary".

import { commonPrefixLength } from '../tokens.js';
import type { Renderer, TemplateSource } from './renderer.js';

/** User messages that begin with each kind of character that chat templates and tokenisers treat apart. */
export const PROBES = ['Hello', '42', '\nline', ' space', '\u{1F642}'] as const;

/** Tokens dropped from the end where no control token ends the template: a merge with the message may change them. */
export const MERGE_MARGIN = 2;

/** What a chat template puts behind the boundary in a conversation with the first probe's message. */
export interface BoundaryHint {
  controlTokens: number;
  tokens: number;
}

export interface Boundary {
  /** The template's tokens; empty where there is nothing that every conversation would share. */
  tokens: Int32Array;
  /** What a later search needs to find the boundary in one render; undefined where no control token ends the template. */
  lesson: BoundaryHint | undefined;
  /** Why there is no template, for people. */
  reason?: string;
  /** Where its prefill is cut: see `findBreakpoints`. */
  breakpoints?: readonly number[];
}

/**
 * Finds the tokens that every conversation with this system prompt and these tools begins with: the longest common prefix
 * of several probe conversations, cut back to just after its last control token, so that no merge straddles the end.
 */
export async function findBoundary(
  renderer: Renderer,
  source: TemplateSource,
  controlTokens: ReadonlySet<number>,
): Promise<Boundary> {
  const prompts: Int32Array[] = [];
  for (const content of PROBES) {
    prompts.push((await renderer.prompt(source, [{ role: 'user', content }])).tokens);
  }
  const [first, ...others] = prompts as [Int32Array, ...Int32Array[]];
  const common = Math.min(...others.map((other) => commonPrefixLength(first, other)));
  const cut = endOfLastControlToken(first.subarray(0, common), controlTokens);
  // A chat template may put the system prompt behind the last control token (Mistral's does, into the user's turn).
  const usesControl = cut > 0 && cut >= common / 2;
  const length = usesControl ? cut : Math.max(0, common - MERGE_MARGIN);
  if (length === 0) {
    return { tokens: new Int32Array(), lesson: undefined, reason: 'conversations share no first token' };
  }
  return {
    tokens: first.slice(0, length),
    lesson: usesControl
      ? { controlTokens: countControlTokens(first.subarray(length), controlTokens), tokens: first.length - length }
      : undefined,
  };
}

/**
 * Finds the boundary in one render, from what an earlier search with the same chat template learned. Where the render does
 * not look as learned (the chat template puts the system prompt behind the last control token), it probes after all.
 */
export async function findKnownBoundary(
  renderer: Renderer,
  source: TemplateSource,
  controlTokens: ReadonlySet<number>,
  lesson: BoundaryHint,
): Promise<Boundary> {
  const { tokens } = await renderer.prompt(source, [{ role: 'user', content: PROBES[0] }]);
  const length = tokens.length - lesson.tokens;
  const looksAsLearned =
    length > 0 &&
    controlTokens.has(tokens[length - 1] as number) &&
    countControlTokens(tokens.subarray(length), controlTokens) === lesson.controlTokens;
  return looksAsLearned ? { tokens: tokens.slice(0, length), lesson } : findBoundary(renderer, source, controlTokens);
}

function endOfLastControlToken(tokens: Int32Array, controlTokens: ReadonlySet<number>): number {
  let length = tokens.length;
  while (length > 0 && !controlTokens.has(tokens[length - 1] as number)) {
    length--;
  }
  return length;
}

function countControlTokens(tokens: Int32Array, controlTokens: ReadonlySet<number>): number {
  return tokens.reduce((count, token) => count + (controlTokens.has(token) ? 1 : 0), 0);
}
