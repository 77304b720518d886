// The parser of each call format reads every reply that the grammar of the format allows.
import { readdirSync, readFileSync } from 'node:fs';
import { CallIds, Renderer, type ReplyOptions, type ToolDefinition, ToolInputs } from 'llama-headstart/internal';
import { Model, type ReplyFormat } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { GrammarWalk } from '../helpers/grammar-walk.js';
import { seededRandom } from '../helpers/native.js';
import { rounds } from '../helpers/soak.js';

const MODELS = new URL('../../vendor/llama.cpp/models/', import.meta.url);
const TEMPLATES = readdirSync(new URL('templates/', MODELS)).filter((file) => file.endsWith('.jinja'));
const DRAWS = 8;
const STREAMED_DRAWS = 2;

const TOOLS: readonly ToolDefinition[] = [
  { name: 'stop', description: 'Stops.' },
  {
    name: 'order',
    description: 'Orders.',
    parameters: {
      type: 'object',
      properties: {
        count: { type: 'integer' },
        urgent: { type: 'boolean' },
        notes: { type: 'string' },
        tags: { type: 'array', items: { type: 'string' } },
      },
      required: ['count', 'tags'],
    },
  },
];

/** Tools for chat templates that can write only simple schemas. */
const TEXT_TOOLS: readonly ToolDefinition[] = [
  { name: 'order', description: 'Orders.', parameters: { type: 'object', properties: { notes: { type: 'string' } } } },
];

let model: Model;
beforeAll(async () => {
  const path = new URL('ggml-vocab-qwen2.gguf', MODELS).pathname;
  model = await Model.load({ path, vocabularyOnly: true });
});
afterAll(() => model.close());

async function formatOf(file: string, options: ReplyOptions): Promise<ReplyFormat> {
  const renderer = new Renderer(model, readFileSync(new URL(`templates/${file}`, MODELS), 'utf8'));
  return (
    await renderer.prompt(
      { tools: file.includes('command-r-plus') ? TEXT_TOOLS : TOOLS },
      [{ role: 'user', content: 'Hi' }],
      options,
    )
  ).format;
}

/** Yields random replies under the grammar, without the text that the generation prompt already contains. */
function* replies(format: ReplyFormat): Generator<string> {
  const { grammar, grammarLazy, grammarTriggers, generationPrompt, thinkingStartTag, thinkingEndTags } = format;
  const walk = new GrammarWalk(grammar);
  const random = seededRandom(7);
  const trigger = grammarTriggers.find(({ type }) => type === 'word') as { value: string } | undefined;
  const isOpen = thinkingEndTags.length > 0 && generationPrompt.includes(thinkingStartTag.trim());
  const begun = grammarLazy ? `${isOpen ? `Hm.${thinkingEndTags[0]}` : ''}${trigger?.value ?? ''}` : '';
  for (let draw = 0; draw < DRAWS; draw++) {
    const rest = walk.textAfter(grammarLazy ? (trigger?.value ?? '') : generationPrompt, random);
    expect(rest).toBeDefined();
    yield begun + rest;
  }
}

function lengthsOf(raw: string, count = 6): number[] {
  const step = Math.ceil(raw.length / count);
  const lengths = Array.from({ length: count }, (_, index) => (index + 1) * step - 1);
  return lengths.filter((length) => length < raw.length && !/[\uD800-\uDBFF]/.test(raw[length - 1] ?? ''));
}

/** Reads a reply piece by piece, and expects that later pieces never contradict the streamed parts of calls. */
async function expectStreamed(rendered: ReplyFormat, raw: string, calls: number): Promise<void> {
  const inputs = new ToolInputs(new CallIds([]), { hasWrittenIds: rendered.hasCallIds, maxCalls: calls });
  const parts: ReturnType<typeof inputs.read> = [];
  for (const length of lengthsOf(raw, 20)) {
    const { toolCalls } = await model.parseReply({ rendered, text: raw.slice(0, length), partial: true });
    parts.push(...inputs.read(toolCalls));
  }
  const finished = inputs.finish((await model.parseReply({ rendered, text: raw })).toolCalls);
  parts.push(...finished.flatMap((each) => each.parts));
  expect(parts.filter(({ type }) => type === 'tool-input-start').length, raw).toBe(calls); // no call starts twice
  for (const { call } of finished) {
    const deltas = parts.filter((part) => part.type === 'tool-input-delta' && part.toolCallId === call.toolCallId);
    expect(JSON.parse(deltas.map((part) => 'delta' in part && part.delta).join('')), raw).toEqual(call.input);
  }
}

const CHOICES: ReplyOptions[] = [{ toolChoice: 'auto', parallelToolCalls: true }, { toolChoice: 'required' }];

describe.each(CHOICES)('with %j, the parser reads the calls of every reply that the grammar allows', (options) => {
  const place = CHOICES.indexOf(options);
  const files = TEMPLATES.filter((_, index) => index % rounds(2, 1) === place % rounds(2, 1));
  it.each(files)('with the chat template %s', async (file) => {
    const format = await formatOf(file, options);
    if (options.toolChoice === 'auto' && file.includes('functionary-medium-v3.2')) {
      expect(format.grammar).toBe(''); // lib/prompt/parsable-grammar.ts says why
      return;
    }
    for (const [draw, raw] of [...replies(format)].entries()) {
      for (const length of lengthsOf(raw)) {
        await model.parseReply({ rendered: format, text: raw.slice(0, length) }); // the parser accepts every beginning
      }
      const { toolCalls, length } = await model.parseReply({ rendered: format, text: raw });
      expect(toolCalls.length, raw).toBeGreaterThan(0);
      expect(raw.length - length, raw).toBeLessThan(3); // `<|` at the end may begin a marker
      for (const call of toolCalls) {
        expect(['stop', 'order']).toContain(call.name);
        expect(JSON.parse(call.arguments || '{}'), raw).toBeTypeOf('object');
      }
      if (draw < STREAMED_DRAWS) {
        await expectStreamed(format, raw, toolCalls.length);
      }
    }
  });
});
