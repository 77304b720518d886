// Writes random texts that a GBNF grammar allows. A model under this grammar may write the same texts.

interface CharacterSet {
  kind: 'set';
  ranges: [number, number][];
  isNegated: boolean;
}

type Item =
  | { kind: 'text'; text: string }
  | CharacterSet
  | { kind: 'rule'; name: string }
  | { kind: 'group'; choices: Item[][] }
  | { kind: 'repeat'; item: Item; min: number; max: number };

const ESCAPES: Record<string, string> = { n: '\n', r: '\r', t: '\t' };
const HEX_DIGITS: Record<string, number> = { x: 2, u: 4, U: 8 };

/**
 * If a character set allows some of these characters, the walk chooses one of them. They are the characters of markup,
 * JSON and Python literals, and some others.
 */
const CHARACTERS = Array.from('ab {}[]()<>/|"\'\\:,=.-_\n\t5é🚲', (each) => each.codePointAt(0) as number);

class GrammarReader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  rules(): Map<string, Item[][]> {
    const rules = new Map<string, Item[][]>();
    for (this.#skip(); this.#at < this.#text.length; this.#skip()) {
      const name = this.#take(/[\w-]+/y);
      this.#skip();
      this.#take(/::=/y);
      rules.set(name, this.#choices(false));
    }
    return rules;
  }

  #choices(isInside: boolean): Item[][] {
    const choices = [this.#sequence(isInside)];
    while (this.#text[this.#at] === '|') {
      this.#at++;
      choices.push(this.#sequence(isInside));
    }
    return choices;
  }

  #sequence(isInside: boolean): Item[] {
    const items: Item[] = [];
    for (;;) {
      this.#skip(isInside);
      const item = this.#item();
      if (item === undefined) {
        return items;
      }
      items.push(this.#repeated(item));
    }
  }

  #item(): Item | undefined {
    const next = this.#text[this.#at];
    if (next === '"') {
      this.#at++;
      return { kind: 'text', text: this.#literal() };
    }
    if (next === '[') {
      this.#at++;
      return this.#set();
    }
    if (next === '(') {
      this.#at++;
      const choices = this.#choices(true);
      this.#take(/\)/y);
      return { kind: 'group', choices };
    }
    if (next === '.') {
      this.#at++;
      return { kind: 'set', ranges: [], isNegated: true };
    }
    return next !== undefined && /[\w-]/.test(next) ? { kind: 'rule', name: this.#take(/[\w-]+/y) } : undefined;
  }

  #repeated(item: Item): Item {
    this.#skip(false, true);
    const sign = this.#text[this.#at] ?? '';
    const bounds = { '*': [0, 1e9], '+': [1, 1e9], '?': [0, 1] }[sign];
    if (bounds !== undefined) {
      this.#at++;
      return this.#repeated({ kind: 'repeat', item, min: bounds[0] as number, max: bounds[1] as number });
    }
    if (sign !== '{') {
      return item;
    }
    const [, low, comma, high] = /\{(\d+)(,?)(\d*)\}/.exec(this.#take(/\{\d+,?\d*\}/y)) as RegExpExecArray;
    const max = comma === '' ? Number(low) : high === '' ? 1e9 : Number(high);
    return this.#repeated({ kind: 'repeat', item, min: Number(low), max });
  }

  #literal(): string {
    let text = '';
    while (this.#text[this.#at] !== '"') {
      text += String.fromCodePoint(this.#character());
    }
    this.#at++;
    return text;
  }

  #set(): CharacterSet {
    const isNegated = this.#text[this.#at] === '^';
    this.#at += Number(isNegated);
    const ranges: [number, number][] = [];
    while (this.#text[this.#at] !== ']') {
      const from = this.#character();
      const isRange = this.#text[this.#at] === '-' && this.#text[this.#at + 1] !== ']';
      this.#at += Number(isRange);
      ranges.push([from, isRange ? this.#character() : from]);
    }
    this.#at++;
    return { kind: 'set', ranges, isNegated };
  }

  #character(): number {
    const code = this.#text.codePointAt(this.#at) as number;
    this.#at += code > 0xffff ? 2 : 1;
    if (code !== 0x5c) {
      return code;
    }
    const sign = this.#text[this.#at++] as string;
    const digits = HEX_DIGITS[sign];
    if (digits === undefined) {
      return (ESCAPES[sign] ?? sign).codePointAt(0) as number;
    }
    this.#at += digits;
    return Number.parseInt(this.#text.slice(this.#at - digits, this.#at), 16);
  }

  #skip(acrossLines = true, inLine = false): void {
    const space = inLine || !acrossLines ? /[ \t]*/y : /(?:\s|#.*)*/y;
    this.#take(space);
  }

  #take(pattern: RegExp): string {
    pattern.lastIndex = this.#at;
    const [taken] = pattern.exec(this.#text) ?? [];
    if (taken === undefined) {
      throw new Error(`Expected ${pattern} in the grammar, got ${this.#text.slice(this.#at, this.#at + 40)}`);
    }
    this.#at += taken.length;
    return taken;
  }
}

/** The items that the walk must still write, as a linked list. */
type Rest = { item: Item; next: Rest } | undefined;

/** After about this number of choices, the walk takes only choices that end the text soon. */
const CHOICES = 300;

/** Writes random texts of one grammar. */
export class GrammarWalk {
  readonly #rules: Map<string, Item[][]>;
  /** The smallest depth of nested rules below each rule. */
  readonly #heights = new Map<string, number>();
  #random: () => number = Math.random;
  #left = CHOICES;

  /** @throws Error for a notation that this reader does not know. */
  constructor(grammar: string) {
    this.#rules = new GrammarReader(grammar).rules();
    for (let changed = true; changed; ) {
      changed = false;
      for (const [name, choices] of this.#rules) {
        const height = 1 + Math.min(...choices.map((each) => this.#heightOf(each)));
        if (height < (this.#heights.get(name) ?? Number.POSITIVE_INFINITY)) {
          this.#heights.set(name, height);
          changed = true;
        }
      }
    }
  }

  /** @param random returns numbers from 0 to 1 */
  text(random: () => number): string {
    return this.textAfter('', random) as string;
  }

  /** Returns the rest of a random text with this beginning, or undefined if the grammar allows no such text. */
  textAfter(beginning: string, random: () => number): string | undefined {
    this.#left = CHOICES;
    this.#random = random;
    const root: Rest = { item: { kind: 'rule', name: 'root' }, next: undefined };
    const rest = this.#after(root, beginning, 0);
    if (rest === undefined) {
      return undefined;
    }
    let text = rest.begun;
    for (let next: Rest = rest.next; next !== undefined; ) {
      const { item } = next;
      if (item.kind === 'text') {
        text += item.text;
        next = next.next;
      } else if (item.kind === 'set') {
        text += String.fromCodePoint(characterOf(item, this.#random));
        next = next.next;
      } else {
        next = withItems(this.#choose(this.#unfolded(item)), next.next);
      }
    }
    return text;
  }

  /** Tries all choices to find the items that follow a beginning. */
  #after(rest: Rest, beginning: string, depth: number): { begun: string; next: Rest } | undefined {
    if (beginning === '' || rest === undefined) {
      return beginning === '' ? { begun: '', next: rest } : undefined;
    }
    const { item, next } = rest;
    if (item.kind === 'text') {
      if (item.text.startsWith(beginning)) {
        return { begun: item.text.slice(beginning.length), next };
      }
      return beginning.startsWith(item.text) ? this.#after(next, beginning.slice(item.text.length), 0) : undefined;
    }
    if (item.kind === 'set') {
      const code = beginning.codePointAt(0) as number;
      return allows(item, code) ? this.#after(next, beginning.slice(code > 0xffff ? 2 : 1), 0) : undefined;
    }
    if (depth > 100) {
      return undefined;
    }
    for (const choice of this.#shuffled(this.#unfolded(item))) {
      const result = this.#after(withItems(choice, next), beginning, depth + 1);
      if (result !== undefined) {
        return result;
      }
    }
    return undefined;
  }

  /** Returns the choices that an item stands for. */
  #unfolded(item: Exclude<Item, { kind: 'text' | 'set' }>): Item[][] {
    if (item.kind === 'rule') {
      return this.#rules.get(item.name) as Item[][];
    }
    if (item.kind === 'group') {
      return item.choices;
    }
    const { item: each, min, max } = item;
    const more: Item[] = [each, { ...item, min: Math.max(0, min - 1), max: max - 1 }];
    return min > 0 ? [more] : max > 0 ? [[], more] : [[]];
  }

  #choose(choices: readonly Item[][]): Item[] {
    this.#left--;
    const least = Math.min(...choices.map((each) => this.#heightOf(each)));
    const allowed = this.#left > 0 ? choices : choices.filter((each) => this.#heightOf(each) === least).slice(0, 1);
    return allowed[Math.floor(this.#random() * allowed.length)] as Item[];
  }

  #shuffled(choices: readonly Item[][]): Item[][] {
    return choices
      .map((choice) => ({ choice, at: this.#random() }))
      .sort((a, b) => a.at - b.at)
      .map(({ choice }) => choice);
  }

  #heightOf(items: readonly Item[]): number {
    return Math.max(0, ...items.map((each) => this.#heightOfItem(each)));
  }

  #heightOfItem(item: Item): number {
    switch (item.kind) {
      case 'rule':
        return this.#heights.get(item.name) ?? Number.POSITIVE_INFINITY;
      case 'group':
        return Math.min(...item.choices.map((each) => this.#heightOf(each)));
      case 'repeat':
        return item.min === 0 ? 0 : this.#heightOfItem(item.item);
      default:
        return 0;
    }
  }
}

function withItems(items: readonly Item[], next: Rest): Rest {
  return items.reduceRight<Rest>((rest, item) => ({ item, next: rest }), next);
}

function allows({ ranges, isNegated }: CharacterSet, code: number): boolean {
  return ranges.some(([from, to]) => code >= from && code <= to) !== isNegated;
}

function characterOf(set: CharacterSet, random: () => number): number {
  const pick = <T>(values: readonly T[]): T => values[Math.floor(random() * values.length)] as T;
  const likely = CHARACTERS.filter((code) => allows(set, code));
  if (likely.length > 0) {
    return pick(likely);
  }
  const [from, to] = pick(set.ranges);
  return from + Math.floor(random() * Math.min(to - from + 1, 100));
}
