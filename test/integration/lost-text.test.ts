// No text of a model is lost: in every format, everything outside reasoning and valid calls is text.
import { readFileSync } from 'node:fs';
import { Renderer, ReplyReader } from 'llama-headstart/internal';
import { Model, type ReplyFormat } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startAgent } from '../helpers/agents.js';
import { GrammarWalk } from '../helpers/grammar-walk.js';
import { seededRandom } from '../helpers/native.js';
import { TOOLS } from '../helpers/prompts.js';

const MODELS = new URL('../../vendor/llama.cpp/models/', import.meta.url);
let model: Model;
beforeAll(async () => {
  const path = new URL('ggml-vocab-qwen2.gguf', MODELS).pathname;
  model = await Model.load({ path, vocabularyOnly: true });
});
afterAll(() => model.close());

const formats = new Map<string, ReplyFormat>();

async function formatOf(name: string): Promise<ReplyFormat> {
  let format = formats.get(name);
  if (format === undefined) {
    const renderer = new Renderer(model, readFileSync(new URL(`templates/${name}.jinja`, MODELS), 'utf8'));
    const messages = [{ role: 'user', content: 'Hi' }] as const;
    ({ format } = await renderer.prompt({ tools: TOOLS }, messages, { parallelToolCalls: true }));
    formats.set(name, format);
  }
  return format;
}

async function read(name: string, raw: string, { size = 1000, cut = false } = {}) {
  const reader = new ReplyReader(model, await formatOf(name), true);
  const deltas = { text: '', reasoning: '' };
  const characters = Array.from(raw);
  for (let at = 0; at < characters.length; at += size) {
    const { text, reasoning } = await reader.push(characters.slice(at, at + size).join(''));
    deltas.text += text;
    deltas.reasoning += reasoning;
  }
  const { text, reasoning, toolCalls } = await reader.finish(cut);
  expect(deltas.text + text).toBe(reader.text);
  return {
    text: deltas.text + text,
    reasoning: deltas.reasoning + reasoning,
    calls: toolCalls.map((call) => [call.name, call.arguments, call.id]),
  };
}

const CALL = '<tool_call>\n{"name": "find_part", "arguments": {"name": "chain"}}\n</tool_call>';
const CALLED = ['find_part', '{"name": "chain"}', ''];
const THOUGHT = '<think>\nHm.\n</think>\n\n';
const UNKNOWN = CALL.replace('find_part', 'unknown');
const GLM = '<tool_call>find_part\n<arg_key>name</arg_key>\n<arg_value>chain</arg_value>\n</tool_call>';
const GPT = '<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant';

describe.each([1, 5, 1000])('in a reply that arrives in pieces of %i characters,', (size) => {
  it.each<[what: string, template: string, raw: string, text: string, calls: string[][]]>([
    ['a call of an unknown tool', 'Qwen-Qwen3-0.6B', `${THOUGHT}${UNKNOWN}`, UNKNOWN, []],
    ['a call of an unknown tool after a text', 'Qwen-Qwen3-0.6B', `${THOUGHT}So: ${UNKNOWN}`, `So: ${UNKNOWN}`, []],
    ['a text after a call', 'Qwen-Qwen3-0.6B', `${THOUGHT}${CALL}\nDone.`, 'Done.', [CALLED]],
    ['a broken call after a whole one', 'Qwen-Qwen3-0.6B', `${THOUGHT}${CALL}\n${UNKNOWN}`, UNKNOWN, [CALLED]],
    ['half a call', 'Qwen-Qwen3-0.6B', `${THOUGHT}${CALL.slice(0, 50)}`, CALL.slice(0, 50), []],
    ['the beginning of markup', 'Qwen-Qwen3-0.6B', `${THOUGHT}a < b <tool`, 'a < b <tool', []],
    ['an invalid argument', 'GLM-4.6', `<think>Hm.</think>${GLM.replace('key>name', 'key>size')}`, '<arg_key>size', []],
    [
      'text in front of the end of a call',
      'GLM-4.6',
      `<think>Hm.</think>${GLM.replace('\n</tool', '\n x</tool')}`,
      ' x</tool',
      [],
    ],
    ['text outside of all channels', 'openai-gpt-oss-120b', `${GPT} We do.`, 'We do.', []],
    ['a call without a channel', 'openai-gpt-oss-120b', `${GPT}{"name": "chain"}`, '{"name": "chain"}', []],
  ])('%s stays text, with %s', async (_, template, raw, text, calls) => {
    const reply = await read(template, raw, { size });
    expect(reply.text).toContain(text);
    expect(reply.text).not.toContain('Hm.');
    expect({ reasoning: reply.reasoning.trim(), calls: reply.calls }).toEqual({ reasoning: 'Hm.', calls });
  });
});

it.each(['openai-gpt-oss-120b', 'CohereForAI-c4ai-command-r-plus-tool_use', 'meetkai-functionary-medium-v3.2'])(
  'a reply in an unknown format is text, even if it is cut off, with %s',
  async (template) => {
    for (const raw of ['[1] We have four', '{ "a": 5', '<b>We</b> have', 'We have', ' [', '{"na', ' a < b']) {
      for (const cut of [true, false]) {
        expect(await read(template, raw, { cut, size: 3 })).toEqual({ text: raw, reasoning: '', calls: [] });
      }
    }
  },
);

describe('a word anywhere in a reply', () => {
  const WORD = 'zebra';
  it.each([
    'Qwen-Qwen3-0.6B',
    'GLM-4.6',
    'Qwen3-Coder',
    'MiniMax-M2',
    'Kimi-K2-Instruct',
    'deepseek-ai-DeepSeek-V3.2',
    'openai-gpt-oss-120b',
    'mistralai-Mistral-Nemo-Instruct-2407',
    'meta-llama-Llama-3.1-8B-Instruct',
  ])('is never lost: it is in the text, the reasoning or a call, with %s', async (template) => {
    const { grammar, grammarTriggers, generationPrompt, thinkingStartTag, thinkingEndTags } = await formatOf(template);
    const walk = new GrammarWalk(grammar);
    const random = seededRandom(11);
    const word = grammarTriggers.find(({ type }) => type === 'word') as { value: string } | undefined;
    const isOpen = thinkingStartTag !== '' && generationPrompt.trimEnd().endsWith(thinkingStartTag.trim());
    for (let draw = 0; draw < 12; draw++) {
      const call = (word?.value ?? '') + walk.textAfter(word?.value ?? '', random);
      const characters = Array.from(`${isOpen ? `Hm.${thinkingEndTags[0]}` : ''}Look: ${call}`);
      characters.splice(Math.floor(random() * characters.length), draw % 3, WORD);
      const raw = characters.join('');
      const whole = await read(template, raw);
      expect([raw, JSON.stringify(whole)]).toEqual([raw, expect.stringContaining(WORD)]);
      expect(await read(template, raw, { size: 1 + draw })).toEqual(whole);
    }
  });
});

it('a marker inside a text stays text, with Functionary', async () => {
  const name = 'meetkai-functionary-medium-v3.2';
  const chatTemplate = readFileSync(new URL(`templates/${name}.jinja`, MODELS), 'utf8');
  const agent = await startAgent({ chatTemplate, contextSize: 2048 });
  const session = await agent.createSession({ tools: TOOLS });
  const [mark] = await agent.model.tokenize('>');
  const reply = await session.send('Hm?', { sampling: { logitBias: { [mark as number]: 1e5 } }, maxTokens: 6 });
  expect(reply).toMatchObject({ text: '>>>>>>', finishReason: 'length' });
});
