// If a text ends with a tag that holds a name (MiniMax M3's), the grammar spells the name: each letter has a rule of its own, so
// that the tag is found wherever it begins. A stand-in for a name cannot be replaced there as it is in literals.

/**
 * A grammar in which spelled words are other words. A text may then not hold the beginning of its closing tag, up to the name.
 *
 * @param words letters and digits only, and the literal that stands for each
 */
export function withSpelledWords(grammar: string, words: ReadonlyMap<string, string>): string {
  const lines = grammar.matchAll(/^(\S+) ::= (.*)$/gm);
  const rules = new Map(Array.from(lines, ([, name = '', body = '']) => [name, body] as const));
  const names = [...rules.keys()];
  const spelled = new Map<string, string>();
  for (const [word, literal] of words) {
    const letter = `[${word[0]}] `;
    for (const name of names.filter((each) => rules.get(each)?.includes(letter))) {
      const end = endOf(word, name, rules);
      if (end !== undefined) {
        spelled.set(name, `${name} ::= ${literal} ${end}`);
      }
    }
  }
  return spelled.size === 0 ? grammar : grammar.replace(/^(\S+) ::= .*$/gm, (rule, name) => spelled.get(name) ?? rule);
}

/** The rule that follows a word, if the rules from `name` on spell it; otherwise undefined. */
function endOf(word: string, name: string, rules: ReadonlyMap<string, string>): string | undefined {
  let at: string | undefined = name;
  for (const letter of word) {
    at = at && new RegExp(`\\[${letter}\\] ([\\w-]+)`).exec(rules.get(at) ?? '')?.[1];
  }
  return at;
}
