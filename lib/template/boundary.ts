// Where a template ends: found by rendering, not assumed. See docs/architecture.md, "The boundary".
import type { Renderer, TemplateSource } from './render.js';
import { commonPrefixLength } from './tokens.js';

/** User messages that begin with each kind of character that chat templates and tokenisers treat apart. */
const PROBES = ['Hello', '42', '\nline', ' space', '\u{1F642}'] as const;

/** Tokens dropped from the end where no control token ends the template: a merge with the message may change them. */
const MERGE_MARGIN = 2;

export interface Boundary {
  /** The template's tokens; empty where there is nothing that every conversation would share. */
  tokens: Int32Array;
  /**
   * How many control tokens follow the boundary in a prompt with one plain user message: what a later search needs to
   * find it in a single render. Undefined where the template does not end with a control token.
   */
  controlTokensBehind: number | undefined;
  /** Why there is no template, for people. */
  reason?: string;
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
    return { tokens: new Int32Array(), controlTokensBehind: undefined, reason: 'conversations share no first token' };
  }
  return {
    tokens: first.slice(0, length),
    controlTokensBehind: usesControl ? countControlTokens(first.subarray(length), controlTokens) : undefined,
  };
}

/**
 * Finds the boundary in one render, from what an earlier search with the same chat template learned. A wrong lesson gives
 * a wrong template, which the prefix check of every use then shows as a miss.
 */
export async function findKnownBoundary(
  renderer: Renderer,
  source: TemplateSource,
  controlTokens: ReadonlySet<number>,
  controlTokensBehind: number,
): Promise<Boundary> {
  const { tokens } = await renderer.prompt(source, [{ role: 'user', content: PROBES[0] }]);
  let behind = 0;
  for (let length = tokens.length; length > 0; length--) {
    if (!controlTokens.has(tokens[length - 1] as number)) {
      continue;
    }
    if (behind === controlTokensBehind) {
      return { tokens: tokens.slice(0, length), controlTokensBehind };
    }
    behind++;
  }
  return findBoundary(renderer, source, controlTokens);
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
