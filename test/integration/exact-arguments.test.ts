// In some formats, the grammars of llama.cpp's `common` enforce neither required arguments nor their types. The
// grammars of this package enforce both.
import { readFileSync } from 'node:fs';
import { Ajv } from 'ajv';
import { Renderer, type ToolDefinition } from 'llama-headstart/internal';
import { Model, type ReplyFormat } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { replyUnder } from '../helpers/grammar-replies.js';
import { GrammarWalk } from '../helpers/grammar-walk.js';
import { microModel } from '../helpers/models.js';
import { seededRandom } from '../helpers/native.js';

const FORMS = [
  'LFM2-8B-A1B',
  'LFM2.5-8B-A1B',
  'Kimi-K3',
  'google-gemma-4-31B-it',
  'openbmb-MiniCPM5-1B',
  'muse-glimmer',
];

/** The end marker of the reasoning in each format whose reasoning cannot be switched off. */
const THOUGHT_ENDS: Readonly<Record<string, string>> = { 'Kimi-K3': '<|close|>think<|sep|>' };

let model: Model;
beforeAll(async () => {
  model = await Model.load({ path: microModel('dense'), vocabularyOnly: true });
});
afterAll(() => model.close());

async function formatOf(form: string, tool: ToolDefinition, options = {}): Promise<ReplyFormat> {
  const file = new URL(`../../vendor/llama.cpp/models/templates/${form}.jinja`, import.meta.url);
  const renderer = new Renderer(model, readFileSync(file, 'utf8'));
  const { format } = await renderer.prompt({ tools: [tool] }, [{ role: 'user', content: 'Hi' }], {
    ...options,
    reasoning: false,
  });
  return format;
}

/** Draws `count` random replies under the grammar, each after the text `before`. Returns the arguments of the calls. */
async function drawn(format: ReplyFormat, count: number, before = ''): Promise<unknown[]> {
  const walk = new GrammarWalk(format.grammar);
  const random = seededRandom(11);
  const found: unknown[] = [];
  for (let draw = 0; draw < count; draw++) {
    const text = before + replyUnder(walk, format, random);
    const { toolCalls } = await model.parseReply({ rendered: format, text }).catch(() => ({ toolCalls: [] }));
    found.push(...toolCalls.map((call) => JSON.parse(call.arguments)));
  }
  return found;
}

const SCHEMAS: [string, object][] = [
  [
    'of all types',
    {
      type: 'object',
      properties: {
        count: { type: 'integer' },
        share: { type: 'number' },
        urgent: { type: 'boolean' },
        tags: { type: 'array', items: { type: 'string' } },
        'kind of': { enum: [1, 2, null] },
        to: { type: 'object', properties: { zip: { type: 'integer' }, by: { type: 'boolean' } }, required: ['zip'] },
        notes: { type: 'string' },
        maybe: { type: ['integer', 'null'] },
      },
      required: ['tags', 'count', 'to', 'kind of'],
      additionalProperties: false,
    },
  ],
  ['that are all optional', { properties: { deep: { type: 'boolean' }, level: { type: 'integer' } } }],
  [
    'with references to definitions and to each other',
    {
      type: 'object',
      properties: { tree: { $ref: '#/$defs/tree' }, other: { $ref: '#/properties/size' }, size: { type: 'integer' } },
      required: ['tree', 'other'],
      $defs: { tree: { type: 'object', properties: { next: { $ref: '#/$defs/tree' } }, additionalProperties: false } },
    },
  ],
];

describe.each(FORMS)('calls in the format of %s', (form) => {
  it.each(SCHEMAS)('fit the schema of arguments %s', async (_, parameters) => {
    const format = await formatOf(form, { name: 'order', parameters }, { toolChoice: 'required' });
    await (await model.createSampler({ grammar: format.grammar })).close();
    const validate = new Ajv({ strict: false }).compile(parameters);
    const calls = await drawn(format, 40);
    expect(calls.length).toBeGreaterThan(10);
    for (const input of calls) {
      expect(validate(input), JSON.stringify([input, validate.errors])).toBe(true);
    }
    expect(new Set(calls.map((input) => Object.keys(input as object).join())).size).toBeGreaterThan(1);
  });

  it('may have no arguments if no argument is required, with toolChoice "required" and "auto"', async () => {
    const parameters = { type: 'object', properties: { deep: { type: 'boolean' } } };
    for (const toolChoice of ['required', 'auto']) {
      const format = await formatOf(form, { name: 'order', parameters }, { toolChoice });
      const calls = (await drawn(format, 60, toolChoice === 'auto' ? THOUGHT_ENDS[form] : '')).map((input) =>
        JSON.stringify(input),
      );
      expect([...new Set(calls)].sort()).toEqual(['{"deep":false}', '{"deep":true}', '{}']);
    }
  });
});
