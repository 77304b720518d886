// Triggers of lazy grammars. Callers may choose words and tokens, but not regular expressions. The reason: std::regex
// matches an expression against the whole reply at every token, and nothing can stop a match that takes exponential
// time. Samplers accept only the patterns of chat templates, as the objects that `Model.render` returns.
import { HeadstartError } from '../errors.js';

/** A part of the reply that starts a lazy grammar. */
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
 * A regular expression (ECMAScript) of a chat template. Use the object from the `grammarTriggers` of `Model.render`: a
 * copy is not accepted. A `pattern` may match any part of the reply. The grammar begins at the first group of the
 * match, or at the start of the match if the pattern has no group. A `patternFull` must match the whole reply so far.
 * The grammar begins at the first group.
 */
export interface TemplatePattern {
  /** Whether the match may begin anywhere in the reply (`pattern`) or must be the whole reply (`patternFull`). */
  readonly type: 'pattern' | 'patternFull';
  /** The regular expression. */
  readonly value: string;
  /** Exists only in the type, so that TypeScript rejects other objects. */
  readonly [fromTemplate]: true;
}

declare const fromTemplate: unique symbol;

/** The patterns that samplers accept. Only this file adds to the set, and the objects are frozen. */
const templatePatterns = new WeakSet<object>();

/**
 * Makes a pattern that samplers accept. Escape text from users, tools or models before you pass it in `value`.
 *
 * @internal
 */
export function templatePattern(type: TemplatePattern['type'], value: string): TemplatePattern {
  const pattern = Object.freeze({ type, value }) as TemplatePattern;
  templatePatterns.add(pattern);
  return pattern;
}

/**
 * Returns the triggers of a render. Samplers accept the patterns among them.
 *
 * @internal
 */
export function triggersOfRender(triggers: readonly GrammarTrigger[]): GrammarTrigger[] {
  return triggers.map((trigger) => (isPattern(trigger) ? templatePattern(trigger.type, trigger.value) : trigger));
}

/** The addon's limit. If there are more triggers, the addon throws an error that names the limit. */
const MAX_TRIGGERS = 256;

/**
 * Returns a copy of the option `grammarTriggers` for the addon. The addon checks words and tokens.
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
  const copy = { ...trigger }; // a getter could return one type to this check and another to the addon
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
