// The arguments of tool calls are streamed while the model writes them, in the call formats of all kinds of chat
// templates.
import { readFileSync } from 'node:fs';
import type { StreamPart } from 'llama-headstart';
import { CallIds, Renderer, ReplyReader, type ToolDefinition, ToolInputs } from 'llama-headstart/internal';
import { Model } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startAgent } from '../helpers/agents.js';
import { ON } from '../helpers/lamp.js';
import { variants } from '../helpers/soak.js';

const MODELS = new URL('../../vendor/llama.cpp/models/', import.meta.url);
const templateOf = (file: string) => readFileSync(new URL(`templates/${file}.jinja`, MODELS), 'utf8');

const TOOLS: readonly ToolDefinition[] = [
  {
    name: 'order',
    description: 'Orders parts.',
    parameters: {
      type: 'object',
      properties: {
        part: { type: 'string' },
        count: { type: 'integer' },
        tags: { type: 'array', items: { type: 'string' } },
        urgent: { type: 'boolean' },
      },
      required: ['part'],
    },
  },
];
/** A tool with few possible calls, so that a model with random weights soon completes a call. */
const LAMP: ToolDefinition = { name: 'lamp', parameters: ON };
const INPUT = { part: 'a "long" chain\nfor 10 \\ 11 gears', count: 12, tags: ['x', 'ü😀'], urgent: true };
const JSON_TEXT = JSON.stringify(INPUT);
const TAGGED = Object.entries(INPUT).map(([name, value]) => [
  name,
  typeof value === 'string' ? value : JSON.stringify(value),
]);
const HERMES = `<tool_call>\n{"name": "order", "arguments": ${JSON_TEXT}}\n</tool_call>`;
const CODER = `<tool_call>\n<function=order>\n${TAGGED.map(([name, text]) => `<parameter=${name}>\n${text}\n</parameter>\n`).join('')}</function>\n</tool_call>`;
const NEMO = `{"name": "order", "arguments": ${JSON_TEXT}, "id": "abcdefghi"}`;
const HARMONY =
  '<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.order <|constrain|>json<|message|>';
const KIMI = `<|tool_call_begin|>functions.order:0<|tool_call_argument_begin|>${JSON_TEXT}<|tool_call_end|>`;
const COHERE = `<|START_ACTION|>[{"tool_call_id": "abcdefghi", "tool_name": "order", "parameters": ${JSON_TEXT}}]<|END_ACTION|>`;
const PYTHON = `[order(part="a \\"long\\" chain\\nfor 10 \\\\ 11 gears", count=12, tags=["x", 'ü😀'], urgent=True)]`;

let model: Model;
beforeAll(async () => {
  model = await Model.load({ path: new URL('ggml-vocab-qwen2.gguf', MODELS).pathname, vocabularyOnly: true });
});
afterAll(() => model.close());

/** Reads a reply character by character. `at` is the number of characters that were read when the part came. */
async function streamed(file: string, raw: string) {
  const renderer = new Renderer(model, templateOf(file));
  const { format } = await renderer.prompt({ tools: TOOLS }, [{ role: 'user', content: 'Hi' }], {
    parallelToolCalls: true,
  });
  const reader = new ReplyReader(model, format, true);
  const inputs = new ToolInputs(new CallIds([]), {
    hasWrittenIds: format.hasCallIds,
    maxCalls: Number.POSITIVE_INFINITY,
  });
  const parts: { at: number; part: ReturnType<typeof inputs.read>[number] }[] = [];
  let at = 0;
  for (const character of raw) {
    await reader.push(character, true);
    at += character.length;
    parts.push(...inputs.read(reader.begunCalls).map((part) => ({ at, part })));
  }
  const finished = inputs.finish((await reader.finish(false)).toolCalls);
  parts.push(...finished.flatMap((call) => call.parts.map((part) => ({ at: raw.length + 1, part }))));
  return { parts, calls: finished.map(({ call }) => call) };
}

describe.each<[file: string, raw: string, ids: string[]]>([
  ['Qwen-Qwen2.5-7B-Instruct', HERMES, ['call00000']],
  ['Qwen-Qwen3-0.6B', `<think>\nHm.\n</think>\n\n${HERMES}\n${HERMES}`, ['call00000', 'call00001']],
  ['meta-llama-Llama-3.1-8B-Instruct', `{"name": "order", "parameters": ${JSON_TEXT}}`, ['call00000']],
  ['Qwen3-Coder', `Look:\n${CODER}\n${CODER}`, ['call00000', 'call00001']],
  ['openai-gpt-oss-120b', `${HARMONY}${JSON_TEXT}`, ['call00000']],
  ['LFM2-8B-A1B', `<|tool_call_start|>${PYTHON}<|tool_call_end|>`, ['call00000']],
  ['Kimi-K2-Instruct', `<|tool_calls_section_begin|>${KIMI}<|tool_calls_section_end|>`, ['call00000']],
  ['CohereForAI-c4ai-command-r7b-12-2024-tool_use', COHERE, ['abcdefghi']],
])('a call in the format of %s', (file, raw, ids) => {
  it('is streamed under its id before it is complete, and its pieces form the JSON text of its input', async () => {
    const { parts, calls } = await streamed(file, raw);
    expect(calls).toEqual(ids.map((toolCallId) => ({ toolCallId, toolName: 'order', input: INPUT })));
    const ends = Array.from(raw.matchAll(/gears/g), (match) => match.index);
    for (const [index, { toolCallId }] of calls.entries()) {
      const mine = parts.filter(({ part }) => part.toolCallId === toolCallId);
      expect(mine[0]?.part).toEqual({ type: 'tool-input-start', toolCallId, toolName: 'order' });
      const deltas = mine.slice(1).map(({ at, part }) => ({ at, text: 'delta' in part ? part.delta : '' }));
      expect(deltas.length).toBeGreaterThan(20);
      expect(JSON.parse(deltas.map(({ text }) => text).join(''))).toEqual(INPUT);
      expect(deltas[0]?.at).toBeLessThan(ends[index] as number);
    }
    expect(parts.filter(({ part }) => part.type === 'tool-input-start')).toHaveLength(ids.length);
  });
});

it('a call whose id comes after its arguments is streamed once the id is known, with Mistral Nemo', async () => {
  const raw = `[TOOL_CALLS][${NEMO}, ${NEMO.replace('abcdefghi', 'jklmnopqr')}]`;
  const { parts, calls } = await streamed('mistralai-Mistral-Nemo-Instruct-2407', raw);
  expect(calls.map(({ toolCallId }) => toolCallId)).toEqual(['abcdefghi', 'jklmnopqr']);
  expect(parts.map(({ part }) => part.type)).toEqual([
    ...['tool-input-start', 'tool-input-delta'],
    ...['tool-input-start', 'tool-input-delta'],
  ]);
  expect(parts[1]?.at).toBeLessThan(raw.indexOf('jkl'));
});

describe('a stream', () => {
  const files = [
    'Qwen-Qwen3-0.6B',
    'Qwen3-Coder',
    'meta-llama-Llama-3.1-8B-Instruct',
    'mistralai-Mistral-Nemo-Instruct-2407',
  ];
  const isRepresentative = (file: string) => file === 'Qwen3-Coder' || file.startsWith('mistralai');
  it.each(variants(files, isRepresentative))(
    'contains start and arguments of each call before the complete call, with %s',
    async (file) => {
      const agent = await startAgent({ chatTemplate: templateOf(file), contextSize: 4096 });
      const session = await agent.createSession({ tools: [{ ...LAMP, execute: () => 'done' }] });
      const parts: StreamPart[] = [];
      const options = { toolChoice: 'required', reasoning: false, maxSteps: 2, maxTokens: 200 } as const;
      for await (const part of session.stream('A chain', options)) {
        parts.push(part);
      }
      const calls = parts.filter((part) => part.type === 'tool-call');
      expect(calls.length).toBeGreaterThan(0);
      for (const { toolCallId, toolName, input } of calls) {
        const mine = parts.filter((part) => 'toolCallId' in part && part.toolCallId === toolCallId);
        expect(mine.map(({ type }) => type).filter((type) => type !== 'tool-input-delta')).toEqual([
          'tool-input-start',
          'tool-call',
          'tool-result',
        ]);
        expect(mine[0]).toEqual({ type: 'tool-input-start', toolCallId, toolName });
        const deltas = mine.flatMap((part) => (part.type === 'tool-input-delta' ? [part.delta] : []));
        expect(mine.findIndex(({ type }) => type === 'tool-call')).toBe(deltas.length + 1);
        expect(JSON.parse(deltas.join(''))).toEqual(input);
      }
    },
  );

  it('contains the start of a call that is cut off or aborted, but no `tool-call` part', async () => {
    const agent = await startAgent({ chatTemplate: templateOf('Qwen-Qwen3-0.6B'), contextSize: 4096 });
    const session = await agent.createSession({ tools: [LAMP] });
    const options = { toolChoice: 'required', reasoning: false, maxParallelTools: 1 } as const;
    const whole = await (await session.fork()).send('Light', { ...options, logProbabilities: 0 });
    const tokens = whole.logProbabilities?.map(({ text }) => text) as string[];
    const maxTokens = tokens.findIndex((_, index) => tokens.slice(0, index).join('').includes('"on"'));
    const types: string[] = [];
    for await (const { type } of session.stream('Light', { ...options, maxTokens })) {
      types.push(type);
    }
    expect(new Set(types)).toEqual(new Set(['tool-input-start', 'tool-input-delta', 'finish']));
    expect(session.pendingToolCalls).toEqual([]);

    const controller = new AbortController();
    types.length = 0;
    const reading = (async () => {
      for await (const { type } of session.stream('Light', { ...options, signal: controller.signal })) {
        types.push(type);
        controller.abort();
      }
    })();
    await expect(reading).rejects.toMatchObject({ code: 'ABORTED' });
    expect(types[0]).toBe('tool-input-start');
    expect(types).not.toContain('tool-call');
  });
});
