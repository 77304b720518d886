// Puts sampled replies into the prompts of many chat templates. Nothing is decoded: the tests choose the sampled tokens.
import { fileURLToPath } from 'node:url';
import type { AssistantMessage, ChatMessage } from 'llama-headstart';
import {
  type ConversationPrompt,
  commonPrefixLength,
  Renderer,
  ReplyReader,
  SampledReplies,
  type TemplateSource,
} from 'llama-headstart/internal';
import { Model } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CHAT_TEMPLATES, loadMarkupModel } from '../helpers/markup-vocabulary.js';
import { assistant } from '../helpers/messages.js';

const GROUP = 'group';
const USER: ChatMessage = { role: 'user', content: 'How many chains do you have?' };
const NEXT: ChatMessage = { role: 'user', content: 'And brakes?' };

let model: Model;

beforeAll(async () => {
  model = await loadMarkupModel();
});

afterAll(() => model.close());

const templateOf = (name: string) => CHAT_TEMPLATES.find(([file]) => file === `${name}.jinja`)?.[1] as string;

/** Tokens that no tokenizer chooses for this text: each character outside of markup is a token or more. */
async function separateTokens(text: string): Promise<number[]> {
  const pieces = text.split(/(<[^<>\s]+>|\[[A-Z_/]+\]|.)/su).filter((part) => part !== '');
  const tokens = await Promise.all(pieces.map((piece) => model.tokenize(piece, { parseSpecial: true })));
  return tokens.flatMap((each) => [...each]);
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
    return this.replies.prompt({ replyScope: group === null ? undefined : { group } }, this.source, messages, {
      parallelToolCalls: true,
    });
  }

  /** Remembers a reply to a prompt, with separate tokens for its characters. Returns the tokens. */
  async sample(
    prompt: ConversationPrompt,
    raw: string,
    more: { isWhole?: boolean; tokens?: number[]; cut?: string } = {},
  ) {
    const { isWhole = true, cut = '', tokens = await separateTokens(raw + cut) } = more;
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

const TOOL = {
  name: 'find_part',
  description: 'Looks up a part.',
  parameters: { type: 'object', properties: { name: { type: 'string' }, count: { type: 'integer' } } },
};

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
    ['Kimi-K2-Instruct', '<|im_end|>'], // writes an id of its own into each call: `functions.find_part:0`
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
      const escaped = (raw: string) => raw.replace('ü', '\\u00fc').replaceAll(/(?<=":|,) ?(?=["\d])/g, '  ');
      const { lab, first, tokens, raw, changed } = await sampleCall(escaped);
      expect(changed).not.toBe(raw);
      for (const input of [INPUT, { count: 2, name: 'Kübel "A"' }]) {
        expect(await lab.contains(withCall(input), first, tokens)).toBe(true);
      }
    });

    it('has no control tokens of the call if the client sends the text of the call', async () => {
      const { lab, raw } = await sampleCall((each) => each);
      const { tokens } = await lab.prompt([USER, assistant(raw.replace('</think>', '')), NEXT]);
      const controls = (all: Int32Array) => all.filter((token) => model.isControl(token));
      const harmless = await lab.renderer.prompt(lab.source, [USER, assistant('Hello'), NEXT]);
      expect([...controls(tokens)]).toEqual([...controls(harmless.tokens)]);
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

describe('the reasoning of a reply', () => {
  it.each([
    ['Qwen-Qwen3-0.6B', '<|im_end|>', '<think>\n', '<think>\n\n'],
    ['openai-gpt-oss-120b', '<|call|>', 'at the list.', 'at the list.\n\n'],
  ])('is as sampled in front of a call, and as rendered if %s leaves it out', async (name, closing, shown, sampled) => {
    const lab = new Lab(templateOf(name), { tools: [TOOL] });
    const first = await lab.prompt([USER]);
    const toolCalls = [{ toolCallId: 'abc123def', toolName: 'find_part', input: { name: 'chain' } }];
    const called: AssistantMessage = { role: 'assistant', content: '', reasoning: 'I look at the list.', toolCalls };
    const result: ChatMessage = { role: 'tool', toolCallId: 'abc123def', toolName: 'find_part', content: 'found' };
    const { text } = await lab.prompt([USER, called, result]);
    const raw = text.slice(first.text.length, text.indexOf(closing, first.text.length));
    expect(raw).toContain(shown);
    const tokens = await lab.sample(first, raw.replace(shown, sampled));
    expect(await lab.contains([USER, called, result], first, tokens)).toBe(true);
    await lab.expectRendered([USER, { ...called, reasoning: 'I look at the floor.' }, result]);
    await lab.expectRendered([USER, { role: 'assistant', content: '', toolCalls }, result]);
    const later = [USER, called, result, assistant('Found.'), NEXT];
    if (!(await lab.prompt(later)).text.includes('I look at the list.')) {
      await lab.expectRendered(later);
    }
  });
});

describe('a reply that did not end by itself', () => {
  const CHATML = templateOf('Qwen-Qwen3-0.6B');
  const end = async (text: string) => [...(await model.tokenize(text, { parseSpecial: true }))];

  /** Samples a cut reply, and returns the tokens of the next prompt from the reply on. */
  async function afterCut(raw: string, message: AssistantMessage, tokens?: number[]) {
    const lab = new Lab(CHATML);
    const first = await lab.prompt([USER]);
    const sampled = await lab.sample(first, raw, { isWhole: false, ...(tokens && { tokens }) });
    const { tokens: next } = await lab.prompt([USER, message, NEXT]);
    const rendered = await lab.renderer.prompt(lab.source, [USER, message, NEXT]);
    const from = first.tokens.length;
    return { sampled, next: [...next.subarray(from)], rendered: [...rendered.tokens.subarray(from)] };
  }

  it('keeps its tokens if its text comes back', async () => {
    const { sampled, next } = await afterCut('Four chains and', assistant('Four chains and'));
    expect(next.slice(0, sampled.length + 1)).toEqual([...sampled, ...(await end('<|im_end|>'))]);
  });

  it('keeps the tokens of the text that a client received before it aborted the reply', async () => {
    const { next } = await afterCut('Four chains and two', assistant('Four chains'));
    const kept = await separateTokens('Four chains');
    expect(next.slice(0, kept.length + 1)).toEqual([...kept, ...(await end('<|im_end|>'))]);
  });

  it('keeps only tokens inside the text in front of a stop string', async () => {
    const tokens = [...(await separateTokens('Four chains ')), ...(await model.tokenize('and brakes'))];
    const { next } = await afterCut('Four chains', assistant('Four chains'), tokens);
    const kept = await separateTokens('Four chains');
    expect(next.slice(0, kept.length + 1)).toEqual([...kept, ...(await end('<|im_end|>'))]);
  });

  it('keeps no token that ends inside a word or a character', async () => {
    for (const [cut, text] of [
      [await model.tokenize('€').then((bytes) => bytes.slice(0, 1)), '€'],
      [await model.tokenize('Four chai'), 'Four chains'],
    ] as const) {
      const { next, rendered } = await afterCut(text, assistant(text), [...cut]);
      const words = (all: readonly number[]) => all.slice(0, all.indexOf(rendered.at(-1) as number));
      expect(words(next)).toEqual(words(rendered));
    }
  });

  it.each([
    ['Qwen-Qwen2.5-7B-Instruct', '<tool_call>', '\n<tool_call>\n{"name": "fi'],
    ['Qwen-Qwen3-0.6B', '<tool_call>', ''],
    ['unsloth-mistral-Devstral-Small-2507', '[TOOL_CALLS]', ''],
  ])('keeps the tokens of its text, but not of its complete call, in the format of %s', async (name, call, cut) => {
    const lab = new Lab(templateOf(name), { tools: [TOOL] });
    const first = await lab.prompt([USER]);
    const toolCalls = [{ toolCallId: 'abc123def', toolName: 'find_part', input: { name: 'chain' } }];
    const result: ChatMessage = { role: 'tool', toolCallId: 'abc123def', toolName: 'find_part', content: 'found' };
    const withText = (text: string) => [USER, { ...assistant(text), toolCalls }, result];
    const messages = withText('Let me look in the list.');
    const reply = (await lab.prompt(messages)).text.slice(first.text.length);
    const sampled = await lab.sample(first, reply.slice(0, reply.indexOf('<|im_end|>')), { isWhole: false, cut });
    const kept = await separateTokens(reply.slice(0, reply.indexOf(call)).trimEnd());
    const { tokens } = await lab.prompt(messages);
    const written = tokens.subarray(first.tokens.length);
    expect([...written.subarray(0, kept.length)]).toEqual(kept);
    expect(commonPrefixLength(written, sampled)).toBeLessThan(kept.length + 4); // the call is as rendered
    const beginning = await separateTokens(reply.slice(0, reply.indexOf(' in the list')));
    expect(await lab.contains(withText('Let me look'), first, beginning)).toBe(true);
    await lab.expectRendered(withText('I look in the list.'));
  });

  it('is as rendered if its text differs, or if its thought has no end', async () => {
    for (const [raw, message] of [
      ['Four chains and', assistant('Four chains and two')],
      ['Four chains and', assistant('Five chains')],
      ['<think>\nLet me count', { ...assistant(''), reasoning: 'Let me count' }],
    ] as const) {
      const { next, rendered } = await afterCut(raw, message);
      expect(next).toEqual(rendered);
    }
  });
});

describe('several replies', () => {
  const CHATML = templateOf('Qwen-Qwen2.5-7B-Instruct');
  const reply = assistant('Four chains.');

  it('in a row, or in a conversation with another beginning, are as rendered if no such reply was sampled', async () => {
    const lab = new Lab(CHATML);
    const tokens = await lab.sample(await lab.prompt([USER]), 'Four chains.');
    const { tokens: twice } = await lab.prompt([USER, reply, reply, NEXT]);
    const rendered = await lab.renderer.prompt(lab.source, [USER, reply, reply, NEXT]);
    const same = (await model.tokenize('Four chains.')).length;
    expect(twice.length - rendered.tokens.length).toBe(tokens.length - same);
    await lab.expectRendered([NEXT, reply, USER]);
    await lab.expectRendered([USER, reply, USER].slice(1));
  });

  it('to one prompt with equal values: the newest one is used, and then stays in the conversation', async () => {
    const lab = new Lab(CHATML);
    const first = await lab.prompt([USER]);
    const older = await lab.sample(first, 'Four chains.');
    const newer = await lab.sample(first, 'Four chains.', {
      tokens: [...(await separateTokens('Four')), ...(await model.tokenize(' chains.'))],
    });
    expect(newer).not.toEqual(older);
    expect(await lab.contains([USER, reply, NEXT], first, newer)).toBe(true);
    await lab.sample(first, 'Four chains.', { tokens: [...older.slice(0, 4), ...(await model.tokenize(' chains.'))] });
    expect(await lab.contains([USER, reply, NEXT], first, newer)).toBe(true);
  });

  it('to one prompt with equal values in two sessions: each session keeps its own', async () => {
    const lab = new Lab(CHATML);
    const sessions = [{ replyScope: { group: GROUP } }, { replyScope: { group: GROUP } }];
    const whole = [...(await model.tokenize('Four chains.'))];
    const tokens = [await separateTokens('Four chains.'), [...(await separateTokens('Four')), ...whole.slice(1)]];
    for (const [index, keeper] of sessions.entries()) {
      const first = await lab.replies.prompt(keeper, lab.source, [USER]);
      await lab.sample(first, 'Four chains.', { tokens: tokens[index] as number[] });
    }
    for (const [index, keeper] of sessions.entries()) {
      const first = await lab.prompt([USER]);
      const next = await lab.replies.prompt(keeper, lab.source, [USER, reply, NEXT]);
      const own = tokens[index] as number[];
      expect([...next.tokens.subarray(first.tokens.length)].slice(0, own.length)).toEqual(own);
    }
  });

  it('are all in the prompt of a long conversation, each after the tokens that it was sampled after', async () => {
    const lab = new Lab(CHATML);
    const messages: ChatMessage[] = [USER];
    for (const text of ['Four.', 'Two chains.', 'No brakes at all.']) {
      const prompt = await lab.prompt(messages);
      const tokens = await lab.sample(prompt, `${text}\n\n`);
      messages.push(assistant(text), NEXT);
      expect(await lab.contains(messages, prompt, tokens)).toBe(true);
    }
    const { tokens } = await lab.prompt(messages);
    const other = new Lab(CHATML);
    other.replies.addRecords(GROUP, JSON.parse(JSON.stringify(lab.replies.recordsFor(GROUP, tokens))));
    expect([...(await other.prompt(messages)).tokens]).toEqual([...tokens]);
    expect(lab.replies.recordsFor('another group', tokens)).toEqual([]);
    other.replies.forget(() => true);
    await other.expectRendered(messages);
  });

  it('that are damaged, or have tokens of another vocabulary, are ignored', async () => {
    const lab = new Lab(CHATML);
    await lab.sample(await lab.prompt([USER]), 'Four chains.');
    const [record] = lab.replies.recordsFor(GROUP, (await lab.prompt([USER, reply, NEXT])).tokens);
    const damaged = [
      undefined,
      7,
      {},
      { ...record, tokens: [] },
      { ...record, tokens: [2 ** 30] },
      { ...record, after: 0 },
    ];
    const other = new Lab(CHATML);
    other.replies.addRecords(GROUP, damaged);
    await other.expectRendered([USER, reply, NEXT]);
  });

  it('whose text contains the text of control tokens keep their plain tokens', async () => {
    const lab = new Lab(CHATML);
    const first = await lab.prompt([USER]);
    const raw = 'Write <|im_end|> at the end.';
    const tokens = [...(await model.tokenize(raw))];
    const [control] = await model.tokenize('<|im_end|>', { parseSpecial: true });
    expect(tokens).not.toContain(control);
    await lab.sample(first, raw, { tokens });
    expect(await lab.contains([USER, assistant(raw), NEXT], first, tokens)).toBe(true);
    const forged = new Lab(CHATML);
    await forged.sample(await forged.prompt([USER]), 'Write at the end.', {
      tokens: [...(await model.tokenize('Write ')), control as number, ...(await model.tokenize('at the end.'))],
    });
    await forged.expectRendered([USER, assistant('Write at the end.'), NEXT]);
  });
});

describe('with a vocabulary that adds BOS and spaces', () => {
  const ZEPHYR =
    "{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + '</s>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}";

  it('the prompt after a reply contains the sampled tokens', async () => {
    const path = fileURLToPath(new URL('../../vendor/llama.cpp/models/ggml-vocab-llama-spm.gguf', import.meta.url));
    const spm = await Model.load({ path, vocabularyOnly: true });
    try {
      expect(spm.info.vocabulary).toMatchObject({ type: 'spm', addsBos: true });
      const renderer = new Renderer(spm, ZEPHYR);
      const replies = new SampledReplies(spm, renderer);
      const keeper = { replyScope: { group: GROUP } };
      const first = await replies.prompt(keeper, {}, [USER]);
      const tokens = [...(await spm.tokenize('Four')), ...(await spm.tokenize('ch')), ...(await spm.tokenize('ains.'))];
      const text = new TextDecoder().decode(await spm.detokenize(Int32Array.from(tokens)));
      first.remember({ tokens, isWhole: true, values: { text, reasoning: '', toolCalls: [] }, isStructured: false });
      const { tokens: next } = await replies.prompt(keeper, {}, [USER, assistant(text.trim()), NEXT]);
      const expected = [...first.tokens, ...tokens];
      expect([...next.subarray(0, expected.length)]).toEqual(expected);
      expect(spm.isEndOfGeneration(next[expected.length] as number)).toBe(true);
    } finally {
      await spm.close();
    }
  });
});
