// Triggers of lazy grammars. Callers may choose words and tokens, but not regular expressions: std::regex matches one against the
// whole reply at every token, and nothing can stop a match that takes exponential time. So samplers accept only the patterns of chat
// templates, as the objects that `Model.render` returns.
import { HeadstartError } from '../errors.js';

/** What starts a lazy grammar. */
export type GrammarTrigger =
  /** The text `value`, anywhere in the reply. */
  | {
      type: 'word';
      /** The text: 1 to 4,096 bytes. */
      value: string;
    }
  /** A token id. */
  | {
      type: 'token';
      /** The id. */
      token: number;
    }
  | TemplatePattern;

/**
 * A regular expression (ECMAScript) of a chat template. Only `Model.render` makes it, in `grammarTriggers`: a copy is not accepted.
 * `pattern`: searched in the reply; the grammar begins at the first group of the match, or at the match if there is no group.
 * `patternFull`: the whole reply so far must match; the grammar begins at the first group.
 */
export interface TemplatePattern {
  /** Whether the match may begin anywhere in the reply (`pattern`) or must be the whole reply (`patternFull`). */
  readonly type: 'pattern' | 'patternFull';
  /** The regular expression. */
  readonly value: string;
  /** Opaque: other objects do not have the type. */
  readonly [fromTemplate]: true;
}

declare const fromTemplate: unique symbol;

/** The patterns that samplers accept. Only this file adds to the set, and the objects are frozen. */
const templatePatterns = new WeakSet<object>();

/**
 * For patterns that this package writes itself. Never pass text from users, tools or models without escaping it.
 *
 * @internal
 */
export function templatePattern(type: TemplatePattern['type'], value: string): TemplatePattern {
  const pattern = Object.freeze({ type, value }) as TemplatePattern;
  templatePatterns.add(pattern);
  return pattern;
}

/**
 * The triggers of a render, with patterns that samplers accept.
 *
 * @internal
 */
export function triggersOfRender(triggers: readonly GrammarTrigger[]): GrammarTrigger[] {
  return triggers.map((trigger) => (isPattern(trigger) ? templatePattern(trigger.type, trigger.value) : trigger));
}

/** More are an error of the addon, which says how many there may be. */
const MAX_TRIGGERS = 256;

/**
 * A copy of the option `grammarTriggers` for the addon, which checks the rest.
 *
 * @throws HeadstartError `INVALID_ARGUMENT` for patterns that do not come from a render.
 * @internal
 */
export function checkedTriggers(triggers: unknown): unknown {
  return Array.isArray(triggers) ? Array.from(triggers.slice(0, MAX_TRIGGERS + 1), checkedTrigger) : triggers;
}

function checkedTrigger(trigger: unknown, index: number): unknown {
  if (typeof trigger !== 'object' || trigger === null || templatePatterns.has(trigger)) {
    return trigger;
  }
  const copy = { ...trigger }; // a getter could return another type to the addon
  if (isPattern(copy)) {
    throw new HeadstartError(
      'INVALID_ARGUMENT',
      `Expected \`grammarTriggers[${index}]\` to be a word, a token, or one of the \`grammarTriggers\` that Model.render() returned, ` +
        `got another object of the type ${copy.type}. Pass the render's own object, or use { type: 'word', value }.`,
    );
  }
  return copy;
}

function isPattern(trigger: object): trigger is TemplatePattern {
  return 'type' in trigger && (trigger.type === 'pattern' || trigger.type === 'patternFull');
}
