// Some formats end a text with a tag that contains a name (MiniMax M3). Their grammars spell the name: each letter has
// its own rule, so that the tag is found wherever it begins. A spelled stand-in for a name is therefore not a literal,
// and this file replaces it.

/**
 * Replaces spelled words in a grammar. Afterwards, a text cannot contain the part of its closing tag in front of the
 * name.
 *
 * @param words the spelled words, of letters and digits only, with the literals that replace them
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

/** The rule after a word if the rules that begin with `name` spell this word; otherwise undefined. */
function endOf(word: string, name: string, rules: ReadonlyMap<string, string>): string | undefined {
  let at: string | undefined = name;
  for (const letter of word) {
    at = at && new RegExp(`\\[${letter}\\] ([\\w-]+)`).exec(rules.get(at) ?? '')?.[1];
  }
  return at;
}
