// Puts sampled replies into the prompts of many chat templates. Nothing is decoded: the tests choose the sampled tokens.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { AssistantMessage, ChatMessage } from 'llama-headstart';
import {
  type ConversationPrompt,
  Renderer,
  ReplyReader,
  SampledReplies,
  type TemplateSource,
} from 'llama-headstart/internal';
import { Model } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CHAT_TEMPLATES, writeMarkupVocabulary } from '../helpers/markup-vocabulary.js';

const GROUP = 'group';
const USER: ChatMessage = { role: 'user', content: 'How many chains do you have?' };
const NEXT: ChatMessage = { role: 'user', content: 'And brakes?' };

let directory: string;
let model: Model;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'headstart-test-'));
  model = await Model.load({ path: await writeMarkupVocabulary(directory), vocabularyOnly: true });
});

afterAll(async () => {
  await model.close();
  await rm(directory, { recursive: true, force: true });
});

const templateOf = (name: string) => CHAT_TEMPLATES.find(([file]) => file === `${name}.jinja`)?.[1] as string;

/** Tokens that no tokenizer chooses for this text: each character outside of markup is a token or more. */
async function separateTokens(text: string): Promise<number[]> {
  const pieces = text.split(/(<[^<>\s]+>|\[[A-Z_/]+\]|.)/su).filter((part) => part !== '');
  const tokens = await Promise.all(pieces.map((piece) => model.tokenize(piece, { parseSpecial: true })));
  return tokens.flatMap((each) => [...each]);
}

async function textOf(tokens: Iterable<number>): Promise<string> {
  return new TextDecoder().decode(await model.detokenize(Int32Array.from(tokens), { special: true }));
}

/** A chat template, and the replies that an agent has sampled with it. */
class Lab {
  readonly renderer: Renderer;
  readonly replies: SampledReplies;
  readonly source: TemplateSource;
  readonly isStructured: boolean;

  constructor(template: string, source: TemplateSource = { systemPrompt: 'Be brief.' }) {
    this.renderer = new Renderer(model, template);
    this.replies = new SampledReplies(model, this.renderer);
    this.source = source;
    this.isStructured = source.tools !== undefined;
  }

  prompt(messages: readonly ChatMessage[], group: string | null = GROUP): Promise<ConversationPrompt> {
    return this.replies.prompt(group ?? undefined, this.source, messages, { parallelToolCalls: true });
  }

  /** Remembers a reply to a prompt, with separate tokens for its characters. Returns the tokens. */
  async sample(prompt: ConversationPrompt, raw: string, more: { isWhole?: boolean; tokens?: number[] } = {}) {
    const { isWhole = true, tokens = await separateTokens(raw) } = more;
    const values = await ReplyReader.read(model, prompt.format, this.isStructured, raw);
    prompt.remember({ tokens, isWhole, values, isStructured: this.isStructured });
    return tokens;
  }

  /** Whether the prompt of a conversation has these tokens right after `before`. */
  async contains(messages: readonly ChatMessage[], before: ConversationPrompt, tokens: readonly number[]) {
    const { tokens: all } = await this.prompt(messages);
    const from = before.tokens.length;
    expect([...all.subarray(0, from)]).toEqual([...before.tokens]);
    return JSON.stringify([...all.subarray(from, from + tokens.length)]) === JSON.stringify(tokens);
  }

  /** Expects that the prompt is as rendered. */
  async expectRendered(messages: readonly ChatMessage[], group: string | null = GROUP) {
    const { tokens } = await this.prompt(messages, group);
    const rendered = await this.renderer.prompt(this.source, messages);
    expect([...tokens]).toEqual([...rendered.tokens]);
  }
}

const assistant = (content: string): AssistantMessage => ({ role: 'assistant', content });

describe('the prompt after a reply', () => {
  it.each(CHAT_TEMPLATES)('contains the sampled tokens if %s repeats the generation prompt', async (_, template) => {
    const lab = new Lab(template);
    const first = await lab.prompt([USER]);
    const { text } = await lab.prompt([USER, assistant('Four chains.'), NEXT]);
    const isRepeated = text.startsWith(first.text);
    const end = text.indexOf('Four chains.') + 'Four chains.'.length;
    const [closing] = await model.tokenize(text.slice(end).trimStart(), { parseSpecial: true });
    const isClosed = model.controlTokens().has(closing as number);
    const tokens = await lab.sample(first, isRepeated ? text.slice(first.text.length, end) : 'Four chains.');
    if (isRepeated && isClosed) {
      expect(await lab.contains([USER, assistant('Four chains.'), NEXT], first, tokens)).toBe(true);
    } else {
      await lab.expectRendered([USER, assistant('Four chains.'), NEXT]);
    }
  });

  const TOOL = {
    name: 'find_part',
    description: 'Looks up a part.',
    parameters: { type: 'object', properties: { name: { type: 'string' }, count: { type: 'integer' } } },
  };
  const withCall = (input: unknown, toolCallId = 'abc123def', text = ''): ChatMessage[] => [
    USER,
    { role: 'assistant', content: text, toolCalls: [{ toolCallId, toolName: 'find_part', input }] },
    { role: 'tool', toolCallId, toolName: 'find_part', content: 'found' },
  ];
  const INPUT = { name: 'Kübel "A"', count: 2 };

  describe.each([
    ['Qwen-Qwen2.5-7B-Instruct', '<|im_end|>'],
    ['NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use', '<|im_end|>'],
    ['Qwen-Qwen3-0.6B', '<|im_end|>'],
    ['meta-llama-Llama-3.1-8B-Instruct', '<|eot_id|>'],
    ['openai-gpt-oss-120b', '<|call|>'],
    ['deepseek-ai-DeepSeek-V3.1', '<｜end▁of▁sentence｜>'],
    ['mistralai-Mistral-Nemo-Instruct-2407', '<|im_end|>'],
    ['unsloth-mistral-Devstral-Small-2507', '<|im_end|>'],
  ])('with calls in the format of %s', (name, closing) => {
    /** Samples a call whose text differs from the rendered one by `change`. */
    async function sampleCall(change: (raw: string) => string) {
      const lab = new Lab(templateOf(name), { tools: [TOOL] });
      const first = await lab.prompt([USER]);
      const { text } = await lab.prompt(withCall(INPUT));
      expect(text.startsWith(first.text)).toBe(true);
      const raw = text.slice(first.text.length, text.indexOf(closing, first.text.length));
      const changed = change(raw);
      const tokens = await lab.sample(first, changed);
      return { lab, first, tokens, raw, changed };
    }

    it('contains the sampled call, whatever form the client gave its arguments', async () => {
      const escape = (raw: string) => raw.replace('ü', '\\u00fc').replaceAll(/(?<=[:,]) ?(?=["\d])/g, '  ');
      const { lab, first, tokens, raw, changed } = await sampleCall(escape);
      expect(changed).not.toBe(raw);
      for (const input of [INPUT, { count: 2, name: 'Kübel "A"' }]) {
        expect(await lab.contains(withCall(input), first, tokens)).toBe(true);
      }
    });

    it('is as rendered if a value differs', async () => {
      const { lab } = await sampleCall((raw) => raw);
      for (const input of [{ ...INPUT, count: 3 }, { ...INPUT, count: '2' }, { ...INPUT, more: 1 }, {}]) {
        await lab.expectRendered(withCall(input));
      }
      const withText = withCall(INPUT, 'abc123def', 'Let me look.');
      if ((await lab.prompt(withText)).text.includes('Let me look.')) {
        await lab.expectRendered(withText); // some chat templates leave out the text of a reply with calls
      }
      await lab.expectRendered(withCall(INPUT), 'group of another tenant');
      await lab.expectRendered(withCall(INPUT), null); // as with `reproducible`
    });
  });
});
