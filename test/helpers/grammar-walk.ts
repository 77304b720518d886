// Random texts that a GBNF grammar allows: what a model under that grammar may write.

type Item =
  | { kind: 'text'; text: string }
  | { kind: 'set'; ranges: [number, number][]; isNegated: boolean }
  | { kind: 'rule'; name: string }
  | { kind: 'group'; choices: Item[][] }
  | { kind: 'repeat'; item: Item; min: number; max: number };

const ESCAPES: Record<string, string> = { n: '\n', r: '\r', t: '\t' };
const HEX_DIGITS: Record<string, number> = { x: 2, u: 4, U: 8 };

/** What is tried for sets that leave much open: what markup, JSON and Python's literals are made of, and other text. */
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

  #set(): Item {
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

/** Writes random texts of one grammar. */
export class GrammarWalk {
  readonly #rules: Map<string, Item[][]>;
  /** How deep a rule has to go at least. */
  readonly #heights = new Map<string, number>();

  /** @throws Error where this reader does not know the grammar's notation. */
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

  /** @param random from 0 up to 1 */
  text(random: () => number, root = 'root'): string {
    let left = 400; // then the shortest way out is taken
    const choose = (choices: readonly Item[][]): Item[] => {
      left--;
      const least = Math.min(...choices.map((each) => this.#heightOf(each)));
      const allowed = left > 0 ? choices : choices.filter((each) => this.#heightOf(each) === least);
      return allowed[Math.floor(random() * allowed.length)] as Item[];
    };
    const write = (item: Item): string => {
      switch (item.kind) {
        case 'text':
          return item.text;
        case 'set':
          return String.fromCodePoint(characterOf(item.ranges, item.isNegated, random));
        case 'rule':
          return choose(this.#rules.get(item.name) as Item[][])
            .map(write)
            .join('');
        case 'group':
          return choose(item.choices).map(write).join('');
        default: {
          let text = '';
          for (let count = 0; count < item.max && (count < item.min || (left > 0 && random() < 0.5)); count++) {
            left--;
            text += write(item.item);
          }
          return text;
        }
      }
    };
    return write({ kind: 'rule', name: root });
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

function characterOf(ranges: readonly [number, number][], isNegated: boolean, random: () => number): number {
  const isIn = (code: number) => ranges.some(([from, to]) => code >= from && code <= to);
  if (!isNegated) {
    const [from, to] = ranges[Math.floor(random() * ranges.length)] as [number, number];
    const likely = CHARACTERS.filter((code) => code >= from && code <= to);
    return to - from > 100 && likely.length > 0
      ? (likely[Math.floor(random() * likely.length)] as number)
      : from + Math.floor(random() * Math.min(to - from + 1, 100));
  }
  const allowed = CHARACTERS.filter((code) => !isIn(code));
  return allowed[Math.floor(random() * allowed.length)] as number;
}
