import type { ReplyFormat } from 'llama-headstart/native';
import type { GrammarWalk } from './grammar-walk.js';

/**
 * Returns a random reply that a format's grammar allows. The texts of some grammars begin with the generation prompt or
 * with the first part of it. This function removes that beginning, because the model does not generate it.
 */
export function replyUnder(walk: GrammarWalk, format: ReplyFormat, random: () => number): string {
  const { grammarLazy, generationPrompt } = format;
  const text = walk.text(random);
  if (grammarLazy || text.startsWith(generationPrompt)) {
    return grammarLazy ? text : text.slice(generationPrompt.length);
  }
  const ends = Array.from(generationPrompt.matchAll(/[>\n]/g), ({ index }) => index + 1);
  const shared = ends.filter((end) => text.startsWith(generationPrompt.slice(0, end))).at(-1) ?? 0;
  return text.slice(shared);
}
