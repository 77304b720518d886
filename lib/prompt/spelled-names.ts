// Some formats end a text with a tag that contains a name (MiniMax M3). Their grammars spell the name: each letter has
// its own rule, so that the tag is found at any position. A stand-in for a name is then not a literal but a series of
// rules, and this file replaces these rules by the real name.

/**
 * Replaces spelled words in a grammar. As a consequence, a text can no longer contain the beginning of its closing tag,
 * up to the name.
 *
 * @param words maps each spelled word, which has only letters and digits, to the literal that replaces it
 */
export function withSpelledNames(grammar: string, words: ReadonlyMap<string, string>): string {
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

/** If the rules from `name` on spell the word, returns the name of the rule after the word. Otherwise undefined. */
function endOf(word: string, name: string, rules: ReadonlyMap<string, string>): string | undefined {
  let at: string | undefined = name;
  for (const letter of word) {
    at = at && new RegExp(`\\[${letter}\\] ([\\w-]+)`).exec(rules.get(at) ?? '')?.[1];
  }
  return at;
}
