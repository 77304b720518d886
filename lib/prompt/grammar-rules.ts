// Combines grammars (GBNF).

/** Literals, character classes, tokens, numbers of repetitions, comments, and the names of rules. */
const PIECES = /"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|<[^>]*>|\{[^}]*\}|#[^\n]*|[A-Za-z0-9-]+/gs;

/** Begins all names of rules with a prefix, so that the rules of two grammars can stand side by side. */
export function withRulePrefix(grammar: string, prefix: string): string {
  return grammar.replace(PIECES, (piece) => (/^[A-Za-z0-9-]/.test(piece) ? prefix + piece : piece));
}

/** A text as a literal of a grammar. */
export function literal(text: string): string {
  return `"${Array.from(text, escaped).join('')}"`;
}

/** A character in a literal or a character class of a grammar. */
export function escaped(character: string): string {
  const code = character.codePointAt(0) as number;
  return /[\w <>/|]/.test(character) ? character : `\\U${code.toString(16).padStart(8, '0')}`;
}
