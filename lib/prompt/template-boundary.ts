// Finds the end of a template by rendering. See docs/design/template-cache.md, "The boundary".
import { commonPrefixLength } from '../tokens.js';
import type { Renderer, TemplateSource } from './renderer.js';

/** User messages. Chat templates or tokenizers treat the first character of each one differently. */
export const PROBES = ['Hello', '42', '\nline', ' space', '\u{1F642}'] as const;

/**
 * The number of tokens to drop at the end of a template if its last token is not a control token. A merge with the
 * message may change these tokens.
 */
export const MERGE_MARGIN = 2;

/**
 * The numbers of tokens after the boundary, in a conversation with the first probe. A later search uses them to locate
 * the boundary in another prompt.
 */
export interface BoundaryHint {
  controlTokens: number;
  tokens: number;
}

export interface Boundary {
  /** The tokens of the template. Empty if conversations share no tokens. */
  tokens: Int32Array;
  /** With a hint, a later search needs only one render. Undefined if the template does not end with a control token. */
  hint: BoundaryHint | undefined;
  /** Why the template is empty, as text for reports. */
  reason?: string;
  /** The positions at which the prefill is split: see `findBreakpoints`. */
  breakpoints?: readonly number[];
}

/**
 * Finds the tokens with which every conversation with this system prompt and these tools begins. These tokens are the
 * longest common prefix of several probe conversations, cut after its last control token, so that no merge of tokens
 * crosses the end.
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
  // A chat template may put the system prompt after the last control token (Mistral's puts it into the user's turn).
  const usesControl = cut > 0 && cut >= common / 2;
  const length = usesControl ? cut : Math.max(0, common - MERGE_MARGIN);
  if (length === 0) {
    return { tokens: new Int32Array(), hint: undefined, reason: 'conversations do not begin with the same token' };
  }
  return {
    tokens: first.slice(0, length),
    hint: usesControl
      ? { controlTokens: countControlTokens(first.subarray(length), controlTokens), tokens: first.length - length }
      : undefined,
  };
}

/**
 * Finds the boundary in one render, with the hint of an earlier search for the same chat template. If the render does
 * not match the hint, searches with probes again. A mismatch is possible because a chat template may put the system
 * prompt after the last control token.
 */
export async function findBoundaryWithHint(
  renderer: Renderer,
  source: TemplateSource,
  controlTokens: ReadonlySet<number>,
  hint: BoundaryHint,
): Promise<Boundary> {
  const { tokens } = await renderer.prompt(source, [{ role: 'user', content: PROBES[0] }]);
  const length = tokens.length - hint.tokens;
  const matchesHint =
    length > 0 &&
    controlTokens.has(tokens[length - 1] as number) &&
    countControlTokens(tokens.subarray(length), controlTokens) === hint.controlTokens;
  return matchesHint ? { tokens: tokens.slice(0, length), hint } : findBoundary(renderer, source, controlTokens);
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
