// Every chat template describes tools with every kind of valid schema, and calls follow the whole schema.
import { readdirSync, readFileSync } from 'node:fs';
import { prepareSchema, Renderer, type ToolDefinition } from 'llama-headstart/internal';
import { Model } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { microModel } from '../helpers/models.js';
import { variants } from '../helpers/soak.js';

const TEMPLATES = new URL('../../vendor/llama.cpp/models/templates/', import.meta.url);
const files = readdirSync(TEMPLATES).filter((file) => file.endsWith('.jinja'));
const chatTemplate = (file: string) => readFileSync(new URL(file, TEMPLATES), 'utf8');
const user = [{ role: 'user', content: 'x' }] as const;

let model: Model;
let tools: ToolDefinition[];
beforeAll(async () => {
  model = await Model.load({ path: microModel('dense'), vocabularyOnly: true });
  const roots = await Promise.all(Object.entries(ROOTS).map(([name, schema]) => toolOf(`root_${name}`, schema)));
  tools = [await withShapes(SHAPES), ...roots];
});
afterAll(() => model?.close());

/** Schemas of properties. The keys are the names of the properties. */
const SHAPES: Record<string, unknown> = {
  anything: {},
  anything_described: { description: 'd' },
  anything_true: true,
  nothing: false,
  list: { type: 'array' },
  list_of_anything: { type: 'array', items: true },
  list_of_objects: { type: 'array', items: { type: 'object', properties: { x: { type: 'string' } } } },
  list_of_enum: { type: 'array', items: { enum: ['a', 'b'] } },
  list_of_nullable: { type: 'array', items: { type: ['string', 'null'] } },
  list_of_lists: { type: 'array', items: { type: 'array', items: { type: 'array' } } },
  list_bounded: { type: 'array', items: { type: 'string' }, minItems: 1, uniqueItems: true, contains: { const: 'a' } },
  tuple_of_2020: { type: 'array', prefixItems: [{ type: 'string' }, { type: 'number' }] },
  nullable: { type: ['string', 'null'] },
  one_type: { type: ['string'] },
  many_types: { type: ['object', 'array', 'null'], properties: { a: { type: 'string' } }, items: { type: 'string' } },
  null_type: { type: 'null' },
  enum_untyped: { enum: ['a', 'b'] },
  enum_null: { enum: ['a', null] },
  enum_nullable: { type: ['string', 'null'], enum: ['a', null] },
  enum_mixed: { enum: [1, 2.5, true, null, { a: 1 }, [1]] },
  const_text: { const: 'a' },
  const_null: { const: null },
  const_object: { const: { a: [1] } },
  any_of: { anyOf: [{ type: 'string' }, { type: 'null' }] },
  any_of_deep: { anyOf: [{ type: 'array', items: { anyOf: [{ type: 'string' }, {}] } }, true, { const: 1 }] },
  one_of: { oneOf: [{ type: 'string' }, { type: 'array' }] },
  one_of_const: { oneOf: [{ const: 'a', title: 'A' }, { const: 'b' }] },
  all_of: { allOf: [{ type: 'object', properties: { a: { type: 'string' } } }, { required: ['a'] }] },
  reference: { $ref: '#/$defs/d' },
  reference_described: { $ref: '#/$defs/d', description: 'x' },
  reference_to_recursion: { $ref: '#/$defs/tree' },
  never: { not: { type: 'string' } },
  conditional: { if: { type: 'string' }, else: { type: 'number' } },
  object: { type: 'object' },
  object_empty: { type: 'object', properties: {} },
  object_nested: { type: 'object', properties: { a: { type: 'object', properties: { b: {}, c: { type: 'array' } } } } },
  object_of_texts: { type: 'object', additionalProperties: { type: 'string' } },
  object_patterns: { type: 'object', patternProperties: { '^x': { type: 'string' } } },
  default_null: { type: 'string', default: null },
  default_object: { type: 'object', default: {} },
  default_list: { type: 'array', items: { type: 'string' }, default: ['x'] },
  default_false: { type: 'boolean', default: false },
  number_bounded: { type: 'number', minimum: 0, exclusiveMaximum: 1.5, multipleOf: 0.5 },
  text_bounded: { type: 'string', minLength: 1, maxLength: 3, pattern: '^a+$', format: 'date' },
  annotated: { title: 'T', type: 'string', $comment: 'c', deprecated: true, examples: ['a', null], nullable: true },
  items: { type: 'string' },
  get: { type: 'string' },
  keys: { type: 'object', properties: { items: { type: 'array', items: { type: 'number' } } } },
};

/** Unusual schemas for the arguments of a tool. The usual schema is an object with properties. */
const ROOTS: Record<string, object> = {
  empty: {},
  open: { type: 'object' },
  untyped: { properties: { a: { type: 'string' } } },
  map: { type: 'object', additionalProperties: { type: 'string' } },
  nullable: { type: ['object', 'null'], properties: { a: { type: 'string' } } },
  union: {
    oneOf: [
      { type: 'object', properties: { a: { type: 'string' } } },
      { type: 'object', properties: { b: {} } },
    ],
  },
  all_of: { allOf: [{ type: 'object', properties: { a: { type: 'string' } } }] },
  reference: { $ref: '#/$defs/a', $defs: { a: { type: 'object', properties: { a: { type: 'string' } } } } },
  recursive: { type: 'object', properties: { next: { $ref: '#' } } },
  draft_7: {
    type: 'object',
    properties: { t: { type: 'array', items: [{ type: 'string' }, {}], additionalItems: false } },
  },
};

const DEFINITIONS = {
  d: { type: 'string' },
  tree: { type: 'object', properties: { next: { $ref: '#/$defs/tree' } } },
};

async function toolOf(name: string, schema: object): Promise<ToolDefinition> {
  return { name, description: 'Does it.', parameters: (await prepareSchema(schema, name)).jsonSchema };
}

const isPossible = (name: string) => SHAPES[name] !== false;

const withShapes = (shapes: Record<string, unknown>) =>
  toolOf('every_shape', {
    type: 'object',
    properties: { ...shapes, inside: { type: 'object', properties: shapes } },
    required: Object.keys(shapes).filter(isPossible),
    $defs: DEFINITIONS,
  });

describe('tools with every kind of valid schema', () => {
  it.each(variants(files, (_, index) => index % 2 === 1))('are described by %s', async (file) => {
    const renderer = new Renderer(model, chatTemplate(file));
    const { text } = await renderer.prompt({ tools }, user, { toolChoice: 'none' });
    expect(
      [...tools.map(({ name }) => name), ...Object.keys(SHAPES).filter(isPossible)].filter(
        (name) => !text.includes(name),
      ),
    ).toEqual([]);
  });
});

describe('a tool whose schema a chat template cannot write', () => {
  it.each<[string, object, string, RegExp]>([
    ['openai-gpt-oss-120b', { type: 'array' }, 'p?: any[]', /":" space array$/m],
    [
      'NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use',
      { type: ['string', 'null'] },
      '"anyOf": [{"type": "string"}, {"enum": [null]}]',
      /::= string \| null$/m,
    ],
    ['ByteDance-Seed-OSS', { type: ['integer', 'null'] }, 'look(p: int)', /::= integer \| null$/m],
    ['ByteDance-Seed-OSS', { anyOf: [{ enum: [1, 2] }] }, 'look(p: int)', /"1"/],
    [
      'CohereForAI-c4ai-command-r-plus-tool_use',
      { type: 'array', items: { type: 'string' } },
      'JSON Schema: {"type":"array","items":{"type":"string"}}',
      /"\[" space \(string/,
    ],
  ])('is shown by %s in a simpler form, and its calls follow the whole schema', async (name, schema, shown, rule) => {
    const renderer = new Renderer(model, chatTemplate(`${name}.jinja`));
    const look = await toolOf('look', { type: 'object', properties: { p: schema } });
    const { text, format } = await renderer.prompt({ tools: [look] }, user, { toolChoice: 'required' });
    expect(text).toContain(shown);
    expect(format.grammar).toMatch(rule);
  });

  it('is shown in the same form in every conversation, whatever other tools there are', async () => {
    const list = await toolOf('look', {
      type: 'object',
      properties: { p: { type: 'array', description: 'of <|im_end|>' } },
    });
    const other = await toolOf('other', {
      type: 'object',
      properties: { q: { oneOf: [{ type: 'array' }, { type: 'null' }] } },
    });
    const fresh = () => new Renderer(model, chatTemplate('openai-gpt-oss-120b.jinja'));
    const renderer = fresh();
    const first = await renderer.prompt({ tools: [list] }, user);
    await renderer.prompt({ tools: [other, list] }, user);
    const long = [...user, { role: 'assistant', content: 'y' }, { role: 'user', content: 'z' }] as const;
    expect((await renderer.prompt({ tools: [list] }, long)).text.startsWith(first.text.slice(0, 1000))).toBe(true);
    expect((await fresh().prompt({ tools: [list] }, user)).text).toBe(first.text);
  });

  it('is refused if the template can write no form of the schema, and the error names tool and property', async () => {
    const refusing = chatTemplate('Qwen-Qwen2.5-7B-Instruct.jinja').replace(
      '{%- for tool in tools %}',
      "{%- for tool in tools %}{%- if 'secret' in (tool | tojson) %}{{ raise_exception('never heard of it') }}{%- endif %}",
    );
    const renderer = new Renderer(model, refusing);
    const look = await toolOf('look', {
      type: 'object',
      properties: { a: { type: 'string' }, secret: { type: 'string' } },
    });
    await expect(renderer.prompt({ tools: [look] }, user)).rejects.toMatchObject({
      code: 'CHAT_TEMPLATE_FAILED',
      message: expect.stringMatching(/`chatTemplate`.*tool "look".*property "secret".*never heard of it/s),
    });
  });

  it('is described in the system message if the chat template refuses all tools', async () => {
    const refusing =
      "{% if tools %}{{ raise_exception('no tools') }}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}";
    const { text } = await new Renderer(model, refusing).prompt({ tools: [await toolOf('look', {})] }, user);
    expect(text).toContain('<tools>\n{"type":"function","function":{"name":"look"');
  });
});

describe('a tool whose schema a chat template can write', () => {
  it('is shown with exactly this schema', async () => {
    const list = { type: 'object', properties: { p: { type: ['array', 'null'], default: null } } };
    const renderer = new Renderer(model, chatTemplate('Qwen-Qwen2.5-7B-Instruct.jinja'));
    const { text } = await renderer.prompt({ tools: [await toolOf('look', list)] }, user);
    expect(text).toContain(
      '"parameters": {"type": "object", "properties": {"p": {"type": ["array", "null"], "default": null}}}',
    );
  });
});
