// Tests that a grammar enforces the schema of a structured reply with every chat template.
import { readdirSync, readFileSync } from 'node:fs';
import { type Prompt, prepareSchema, Renderer, ReplyReader } from 'llama-headstart/internal';
import { Model, type ReplyFormat } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { GrammarWalk } from '../helpers/grammar-walk.js';
import { microModel } from '../helpers/models.js';
import { seededRandom } from '../helpers/native.js';
import { rounds } from '../helpers/soak.js';

const TEMPLATES = new URL('../../vendor/llama.cpp/models/templates/', import.meta.url);
const files = readdirSync(TEMPLATES).filter((file) => file.endsWith('.jinja'));
const chatTemplate = (file: string) => readFileSync(new URL(file, TEMPLATES), 'utf8');

const SCHEMA = {
  type: 'object',
  properties: {
    kind: { enum: ['chain', '</think>'] },
    parts: { type: 'array', items: { type: 'string', maxLength: 8 } },
  },
  required: ['kind', 'parts'],
  additionalProperties: false,
};

let model: Model;
beforeAll(async () => {
  model = await Model.load({ path: microModel('dense'), vocabularyOnly: true });
});
afterAll(() => model?.close());

/** Returns random replies that the grammar allows after the generation prompt. */
function repliesOf({ grammar, generationPrompt }: ReplyFormat, count: number): string[] {
  const walk = new GrammarWalk(grammar);
  const random = seededRandom(7);
  return Array.from({ length: count }, () => walk.textAfter(generationPrompt, random) as string);
}

async function promptFor(file: string, jsonSchema: object, reasoning: boolean): Promise<Prompt> {
  const renderer = new Renderer(model, chatTemplate(file));
  return renderer.prompt({}, [{ role: 'user', content: 'x' }], { toolChoice: 'none', jsonSchema, reasoning });
}

/** Reads a reply as a turn does. */
async function read({ format }: Prompt, reply: string): Promise<{ text: string; reasoning: string }> {
  const reader = new ReplyReader(model, format, true);
  await reader.push(reply);
  await reader.finish(false);
  return { text: reader.text, reasoning: reader.reasoning };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

describe('a structured reply', () => {
  it.each(files)('matches the schema, whatever the model writes, with the chat template %s', async (file) => {
    const { parse } = await prepareSchema(SCHEMA, 'schema');
    for (const reasoning of [true, false]) {
      const prompt = await promptFor(file, SCHEMA, reasoning);
      expect(prompt.format.grammarLazy).toBe(false);
      await (await model.createSampler({ grammar: prompt.format.grammar })).close();
      const replies = repliesOf(prompt.format, 4);
      for (const reply of replies) {
        const { text } = await read(prompt, reply);
        const isValid = await parse(parsed(text)).then(
          () => true,
          () => false,
        );
        expect({ reply, text, isValid }).toEqual({ reply, text, isValid: true });
      }
    }
  });

  it.each<[string, RegExp, boolean]>([
    ['GigaChat3-10B-A1.8B', /^\{/, false],
    ['Kimi-K2-Instruct', /^\{/, false],
    ['Kimi-K2-Thinking', /^<think>.*<\/think>\{/s, true],
    ['Kimi-K3', /^.*<\|close\|>think<\|sep\|><\|open\|>response<\|sep\|>\{/s, true],
    ['inclusionai-ling-3.0-flash', /^.*<\/think>\{/s, true],
    ['meetkai-functionary-medium-v3.2', /^all\n\{/, false],
    ['muse-glimmer', /^ to=user<\|message\|>\{/, false],
  ])(
    'begins like other replies with the chat template %s, with reasoning if the chat template supports it',
    async (name, beginning, hasReasoning) => {
      const prompt = await promptFor(`${name}.jinja`, SCHEMA, true);
      const replies = repliesOf(prompt.format, 20);
      expect(replies.filter((reply) => !beginning.test(reply))).toEqual([]);
      const reasoningRepliesIn = async (each: Prompt) => {
        const readings = await Promise.all(repliesOf(each.format, 20).map((reply) => read(each, reply)));
        return readings.filter(({ reasoning }) => reasoning !== '').length;
      };
      expect((await reasoningRepliesIn(prompt)) > 0).toBe(hasReasoning);
      expect(await reasoningRepliesIn(await promptFor(`${name}.jinja`, SCHEMA, false))).toBe(0);
    },
  );

  it('begins with the JSON if the chat template changes the text of replies', async () => {
    const written = chatTemplate('Kimi-K2-Instruct.jinja');
    const capitals = written.replaceAll('render_content(message)', 'render_content(message) | upper');
    expect(capitals).not.toBe(written);
    const { format } = await new Renderer(model, capitals).prompt({}, [{ role: 'user', content: 'x' }], {
      toolChoice: 'none',
      jsonSchema: SCHEMA,
    });
    expect(repliesOf(format, 4).filter((reply) => !reply.startsWith('{'))).toEqual([]);
  });

  it.each(['Kimi-K2-Instruct', 'Qwen-Qwen3-0.6B', 'openai-gpt-oss-120b', 'Qwen3.5-4B'])(
    'may be any JSON if the schema is empty, with the chat template %s',
    async (name) => {
      const prompt = await promptFor(`${name}.jinja`, {}, true);
      for (const reply of repliesOf(prompt.format, 4)) {
        expect(parsed((await read(prompt, reply)).text)).not.toBe(undefined);
      }
    },
  );
});

describe('a structured reply that may call tools', () => {
  const TOOL = {
    name: 'order',
    description: 'Orders.',
    parameters: { type: 'object', properties: { count: { type: 'integer' } } },
  };

  it.each(files.filter((_, index) => index % rounds(2, 1) === 0))(
    'either calls a tool or matches the schema, with the chat template %s',
    async (file) => {
      const { parse } = await prepareSchema(SCHEMA, 'schema');
      const renderer = new Renderer(model, chatTemplate(file));
      const prompt = await renderer.prompt({ tools: [TOOL] }, [{ role: 'user', content: 'x' }], { jsonSchema: SCHEMA });
      expect(prompt.format.grammarLazy).toBe(false);
      await (await model.createSampler({ grammar: prompt.format.grammar })).close();
      const kinds = new Set<string>();
      for (const reply of repliesOf(prompt.format, 12)) {
        const { text, toolCalls } = await ReplyReader.read(model, prompt.format, true, reply);
        const isValid = await parse(parsed(text)).then(
          () => true,
          () => toolCalls[0]?.name === TOOL.name,
        );
        expect({ reply, text, toolCalls, isValid }).toEqual({ reply, text, toolCalls, isValid: true });
        kinds.add(toolCalls.length > 0 ? 'call' : 'JSON');
      }
      expect([...kinds].sort()).toEqual(['JSON', 'call']);
    },
  );
});
