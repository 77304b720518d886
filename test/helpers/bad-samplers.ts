// Sampler options that the package must refuse, with the expected error codes. With many of these options, llama.cpp's
// library `common` would end the process or never return.

const deep = `${'('.repeat(20_000)}"a"${')'.repeat(20_000)}`;
const alternatives = (depth: number) =>
  Array.from({ length: depth }, (_, i) => `r${i} ::= r${i + 1} "a" | r${i + 1} "b"`).join('\n');

/** Grammars that the package must refuse, by a description of the fault. */
export const BAD_GRAMMARS: Record<string, string> = {
  'of the llguidance library': '%llguidance {}\nstart: "a"',
  'of the llguidance library, after a space': ' %llguidance {}',
  'with invalid syntax': 'this is not a grammar',
  'that is cut off': 'root ::= "a',
  'without root': 'start ::= "a"',
  'with an undefined rule': 'root ::= "a" other',
  'with left recursion': 'root ::= root "a" | "b"',
  'with left recursion through another rule': 'root ::= a "x"\na ::= root "y" | "z"',
  'with left recursion after a rule that may be empty': 'root ::= x root "b" | "a"\nx ::= y\ny ::= "" | "q"',
  'with left recursion after a repetition that may be empty': 'root ::= ("a"?)+ root "b" | "c"',
  'that can never end': 'root ::= "a" root',
  'nested too deep': `root ::= ${deep}`,
  'that expands to too many elements': `root ::= "${'a'.repeat(3000)}"{2000}`,
  'that expands through stacked repetitions': `root ::= "a"{2000}${'+'.repeat(5000)}`,
  'with a repetition whose minimum is above its maximum': 'root ::= "a"{5,2}',
  'with a huge repetition': 'root ::= "a"{99999999999999999999}',
  'that can begin in too many ways': `root ::= r0\n${alternatives(40)}\nr40 ::= "x"`,
  'with a token out of range': 'root ::= <[99999999]>',
  'with an unknown token': 'root ::= <no such token, surely>',
  'with a NUL': 'root ::= "a"\0',
  'of more than a mebibyte': `root ::= "a"${' '.repeat(1 << 20)}`,
};

const grammar = 'root ::= "a"';
const lazy = (type: 'pattern' | 'patternFull' | 'word', value: string) => ({
  grammar,
  grammarLazy: true,
  grammarTriggers: [{ type, value }],
});

/**
 * Options that the package must refuse: a description, the options, and the expected code. Many values have a wrong
 * type.
 */
export const BAD_OPTIONS: [string, unknown, string][] = [
  ...[
    'temperature',
    'topP',
    'minP',
    'typicalP',
    'topNSigma',
    'repeatPenalty',
    'frequencyPenalty',
    'presencePenalty',
  ].flatMap((name) =>
    [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 1e30, '1', null, {}].map(
      (value): [string, unknown, string] => [`${name} of ${String(value)}`, { [name]: value }, 'INVALID_ARGUMENT'],
    ),
  ),
  ...['topK', 'minKeep', 'penaltyLastTokens', 'seed'].flatMap((name) =>
    [-1, 1.5, Number.NaN, 2 ** 40, '1', null].map((value): [string, unknown, string] => [
      `${name} of ${String(value)}`,
      { [name]: value },
      'INVALID_ARGUMENT',
    ]),
  ),
  ['a negative temperature', { temperature: -1 }, 'INVALID_ARGUMENT'],
  [
    'a dynamic temperature range as wide as the temperature',
    { temperature: 1, dynamicTemperatureRange: 1 },
    'INVALID_ARGUMENT',
  ],
  ['the seed that means a random seed', { seed: 0xffffffff }, 'INVALID_ARGUMENT'],
  ['mirostat 3', { temperature: 1, mirostat: { version: 3 } }, 'INVALID_ARGUMENT'],
  ['mirostat -1', { temperature: 1, mirostat: { version: -1 } }, 'INVALID_ARGUMENT'],
  ['mirostat without a version', { temperature: 1, mirostat: {} }, 'INVALID_ARGUMENT'],
  ['mirostat with greedy sampling', { mirostat: { version: 2 } }, 'INVALID_ARGUMENT'],
  ['a DRY base below 1', { dry: { multiplier: 1, base: 0.5 } }, 'INVALID_ARGUMENT'],
  ['an empty sequence breaker', { dry: { multiplier: 1, sequenceBreakers: [''] } }, 'INVALID_ARGUMENT'],
  ['a long sequence breaker', { dry: { multiplier: 1, sequenceBreakers: ['x'.repeat(41)] } }, 'INVALID_ARGUMENT'],
  ['a number as DRY options', { dry: 1 }, 'INVALID_ARGUMENT'],
  ['an XTC probability above 1', { xtc: { probability: 2 } }, 'INVALID_ARGUMENT'],
  ['a bias of a token out of range', { logitBias: { 99999999: 1 } }, 'TOKEN_OUT_OF_RANGE'],
  ['a bias of a negative token', { logitBias: { '-1': 1 } }, 'TOKEN_OUT_OF_RANGE'],
  ['a bias of an invalid token id', { logitBias: { a: 1 } }, 'INVALID_ARGUMENT'],
  ['a bias of Infinity', { logitBias: { 1: Number.POSITIVE_INFINITY } }, 'INVALID_ARGUMENT'],
  ['a bias of NaN', { logitBias: { 1: Number.NaN } }, 'INVALID_ARGUMENT'],
  ['a word as the value of a bias', { logitBias: { 1: 'much' } }, 'INVALID_ARGUMENT'],
  ['a number as grammar', { grammar: 5 }, 'INVALID_ARGUMENT'],
  ['a lazy grammar without triggers', { grammar, grammarLazy: true }, 'INVALID_ARGUMENT'],
  [
    'triggers without a grammar',
    { grammarLazy: true, grammarTriggers: [{ type: 'word', value: 'a' }] },
    'INVALID_ARGUMENT',
  ],
  ['a trigger of an unknown type', { grammar, grammarTriggers: [{ type: 'verb', value: 'a' }] }, 'INVALID_ARGUMENT'],
  ['a trigger token out of range', { grammar, grammarTriggers: [{ type: 'token', token: 1e9 }] }, 'INVALID_ARGUMENT'],
  ['a string as triggers', { grammar, grammarTriggers: 'a' }, 'INVALID_ARGUMENT'],
  ['a null as trigger', { grammar, grammarTriggers: [null] }, 'INVALID_ARGUMENT'],
  ['257 triggers', { grammar, grammarTriggers: new Array(257).fill({ type: 'word', value: 'a' }) }, 'INVALID_ARGUMENT'],
  ['a trigger pattern that no chat template has', lazy('pattern', 'ab'), 'INVALID_ARGUMENT'],
  ['a full trigger pattern that no chat template has', lazy('patternFull', '(a+)+b'), 'INVALID_ARGUMENT'],
  ['a trigger pattern without a value', { grammar, grammarTriggers: [{ type: 'pattern' }] }, 'INVALID_ARGUMENT'],
  ['an empty trigger word', lazy('word', ''), 'GRAMMAR_INVALID'],
  ['a trigger word of more than 4,096 bytes', lazy('word', 'é'.repeat(2049)), 'GRAMMAR_INVALID'],
  ['a trigger word with a NUL', lazy('word', 'a\0'), 'GRAMMAR_INVALID'],
  ['a long generation prompt', { grammar, generationPrompt: 'a'.repeat(1e5) }, 'TEXT_TOO_LONG'],
  ['a generation prompt that the grammar refuses', { grammar, generationPrompt: 'b' }, 'GRAMMAR_INVALID'],
  ['a generation prompt that ends generation', { grammar, generationPrompt: '<|im_end|>' }, 'INVALID_ARGUMENT'],
  ['a number as options', 5, 'INVALID_ARGUMENT'],
];
