// The spans of a prompt say which tokens belong to which message and tool. With every chat template of llama.cpp, a
// span is either right or unknown.
import { fileURLToPath } from 'node:url';
import type { ChatMessage } from 'llama-headstart';
import { commonPrefixLength, type PromptSpans, Renderer, type Span, SpanFinder } from 'llama-headstart/internal';
import { Model } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CHAT_TEMPLATES, loadMarkupModel } from '../helpers/markup-vocabulary.js';
import { SYSTEM_PROMPT, TOOLS } from '../helpers/prompts.js';
import { rounds, variants } from '../helpers/soak.js';

const SOURCE = { systemPrompt: SYSTEM_PROMPT, tools: TOOLS };

const PLAIN: readonly ChatMessage[] = [
  { role: 'user', content: 'Do you have chains?' },
  { role: 'assistant', content: 'Yes.', reasoning: 'Every workshop has chains.' },
  { role: 'user', content: 'Yes.' },
];

/**
 * A conversation with equal contents, contents inside other contents, white space around a content, an empty content,
 * markup in a content, and characters of several bytes.
 */
const CONVERSATION: readonly ChatMessage[] = [
  { role: 'user', content: '\n  Do you have chains?\n' },
  { role: 'assistant', content: 'chains', reasoning: 'They ask for chains.' },
  { role: 'user', content: 'Do you have chains? <|im_end|>\n<|im_start|>user\n\u{1F6B2}</s>' },
  {
    role: 'assistant',
    content: '',
    reasoning: 'I look.',
    toolCalls: [{ toolCallId: 'abcdefgh1', toolName: 'find_part', input: { name: 'chains' } }],
  },
  { role: 'tool', toolCallId: 'abcdefgh1', toolName: 'find_part', content: 'Four in stock' },
  { role: 'assistant', content: 'Four' },
  { role: 'user', content: 'chains' },
];

/** Contents that merge with the markup around them in different ways. */
const OTHER_CONTENTS = ['\n\nTwo\nlines\n', '42', ' space ', "'s \u{1F642}"];

let model: Model;

beforeAll(async () => {
  model = await loadMarkupModel();
});

afterAll(() => model.close());

interface Found {
  renderer: Renderer;
  spans: PromptSpans;
  tokens: Int32Array;
  /** Whether a render with `textOnly` gives the same text. */
  textOnly: boolean;
}

async function find(chatTemplate: string, messages: readonly ChatMessage[], source: object = SOURCE): Promise<Found> {
  const renderer = new Renderer(model, chatTemplate);
  const spans = await new SpanFinder(model, renderer).find(source, messages);
  const { tokens, text } = await renderer.tokens(source, messages);
  const quick = await renderer.text(source, messages, { textOnly: true }).catch(() => undefined);
  return { renderer, spans, tokens, textOnly: quick?.text === text };
}

const textOf = async (tokens: Int32Array, { from, to }: Span) =>
  new TextDecoder().decode(await model.detokenize(tokens.subarray(from, to), { special: true }));

const isComplete = ({ messages, generationPrompt }: PromptSpans) =>
  messages.every((span) => span !== undefined) && generationPrompt !== undefined;

/** Expects that two prompts are equal outside a span of the first prompt. */
function expectChangeInside(span: Span, before: Int32Array, after: Int32Array, label: string): void {
  const { from, to } = span;
  expect(commonPrefixLength(before, after), `${label}: in front`).toBeGreaterThanOrEqual(from);
  const rest = before.length - to;
  expect(after.slice(after.length - rest), `${label}: after`).toEqual(before.slice(to));
  expect(after.length - rest, label).toBeGreaterThanOrEqual(from);
}

async function checkTexts({ spans, tokens }: Found, messages: readonly ChatMessage[]): Promise<void> {
  let end = 0;
  for (const [index, span] of [...spans.messages, spans.generationPrompt].entries()) {
    if (span === undefined) {
      continue;
    }
    expect(span.from).toBeGreaterThanOrEqual(end);
    expect(span.to).toBeLessThanOrEqual(tokens.length);
    end = span.to;
    const content = messages[index]?.content.trim() ?? '';
    expect((await textOf(tokens, span)).toLowerCase()).toContain(content.toLowerCase());
  }
  if (spans.generationPrompt !== undefined) {
    expect(spans.generationPrompt.to).toBe(tokens.length);
  }
  if (spans.system !== undefined) {
    expect(await textOf(tokens, spans.system)).toContain(SYSTEM_PROMPT);
  }
  for (const [index, span] of spans.tools.entries()) {
    const text = span === undefined ? undefined : await textOf(tokens, span);
    expect(text ?? TOOLS[index]?.name).toContain(TOOLS[index]?.name);
    expect(text ?? '').not.toContain(TOOLS[1 - index]?.name);
  }
}

async function checkChanges({ renderer, spans, tokens, textOnly }: Found, messages: readonly ChatMessage[]) {
  const render = async (source: object, changed: readonly ChatMessage[]) =>
    (await renderer.tokens(source, changed, { textOnly })).tokens;
  for (const [index, span] of spans.messages.entries()) {
    const message = messages[index] as ChatMessage;
    if (span !== undefined && message.content !== '') {
      const content = OTHER_CONTENTS[index % OTHER_CONTENTS.length] as string;
      const changed = messages.with(index, { ...message, content });
      expectChangeInside(span, tokens, await render(SOURCE, changed), `message ${index}`);
    }
  }
  if (spans.system !== undefined) {
    const source = { ...SOURCE, systemPrompt: "\n's 42 " };
    expectChangeInside(spans.system, tokens, await render(source, messages), 'system prompt');
  }
  for (const [index, span] of spans.tools.entries()) {
    if (span !== undefined) {
      const other = {
        name: TOOLS[index]?.name ?? '',
        description: '7',
        parameters: { type: 'object', properties: {} },
      };
      const source = { ...SOURCE, tools: TOOLS.map((tool, at) => (at === index ? other : tool)) };
      expectChangeInside(span, tokens, await render(source, messages), `tool ${index}`);
    }
  }
}

describe('with every chat template of llama.cpp', () => {
  const found: PromptSpans[] = [];

  // `npm test` runs every second chat template. message-end.test.ts runs the others.
  it.each(variants(CHAT_TEMPLATES, (_, index) => index % 2 === 1))(
    'spans have the contents, and a change stays inside its span: %s',
    async (_, chatTemplate) => {
      const each = await find(chatTemplate, CONVERSATION);
      found.push(each.spans);
      await checkTexts(each, CONVERSATION);
      await checkChanges(each, CONVERSATION);
    },
  );

  it('nearly all spans are known, and most chat templates have no unknown span of a message', () => {
    const count = (spans: readonly (Span | undefined)[]) => spans.filter((span) => span !== undefined).length;
    expect(found.length).toBeGreaterThanOrEqual(rounds(35, 70));
    expect(found.filter(isComplete).length).toBeGreaterThanOrEqual(rounds(25, 46));
    expect(count(found.flatMap(({ messages }) => messages))).toBeGreaterThanOrEqual(rounds(206, 407));
    expect(count(found.flatMap(({ tools }) => tools))).toBeGreaterThanOrEqual(rounds(70, 138));
    expect(count(found.map(({ system }) => system))).toBeGreaterThanOrEqual(rounds(35, 70));
    expect(count(found.map(({ generationPrompt }) => generationPrompt))).toBeGreaterThanOrEqual(rounds(32, 63));
  });
});

const CHATML =
  "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + CONTENT + '<|im_end|>\\n' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
/** ChatML with a Jinja expression for the content. */
const chatml = (content = 'm.content', head = '') => head + CHATML.replace('CONTENT', content);

describe('a span is unknown', () => {
  const spansOf = async (chatTemplate: string, messages = PLAIN) => (await find(chatTemplate, messages, {})).spans;

  it('only of a message that the chat template rewrites', async () => {
    const { messages } = await spansOf(
      chatml("('No.' if m.content == 'Yes.' and m.role == 'assistant' else m.content)"),
    );
    expect(messages.map((span) => span !== undefined)).toEqual([true, false, true]);
  });

  it('only of a message that the chat template leaves out', async () => {
    const leavesOut = chatml().replace('messages %}', 'messages if m.content != "chains" %}');
    const { messages } = await spansOf(leavesOut, [
      { role: 'user', content: 'Hi' },
      { role: 'assistant', content: 'Hello' },
      { role: 'user', content: 'chains' },
      { role: 'user', content: 'Bye' },
    ]);
    expect(messages.map((span) => span !== undefined)).toEqual([true, true, false, true]);
  });

  it('of the messages around a content that is written twice', async () => {
    const { messages } = await spansOf(chatml('m.content', "{{ messages[0].content + '<|im_start|>' }}"));
    expect(messages[0]).toBeUndefined();
    const later = await spansOf(chatml("m.content + (messages[0].content if loop.last else '')"));
    expect(later.messages).toEqual([undefined, undefined, undefined]);
  });

  it('of messages in another order', async () => {
    const { messages } = await spansOf(chatml().replace('in messages', 'in messages|reverse'));
    expect(messages).toEqual([undefined, undefined, undefined]);
  });

  it('of a message that shares its turn with the system prompt', async () => {
    const head = "{% set system = messages[0].content if messages[0].role == 'system' else '' %}";
    const inUserTurn = chatml("(system if m.role == 'user' and loop.first else '') + m.content", head);
    const { spans } = await find(inUserTurn.replace('in messages', "in messages if m.role != 'system'"), PLAIN, {
      systemPrompt: 'Be brief.',
    });
    expect(spans.messages.map((span) => span !== undefined)).toEqual([false, true, true]);
  });

  it('with a tokenizer that changes the text', async () => {
    const path = fileURLToPath(new URL('../../vendor/llama.cpp/models/ggml-vocab-bert-bge.gguf', import.meta.url));
    const bert = await Model.load({ path, vocabularyOnly: true });
    try {
      const renderer = new Renderer(bert, chatml());
      expect(await new SpanFinder(bert, renderer).find(SOURCE, PLAIN)).toEqual({
        system: undefined,
        tools: [undefined, undefined],
        messages: [undefined, undefined, undefined],
        generationPrompt: undefined,
      });
    } finally {
      await bert.close();
    }
  });
});

it('a long conversation needs no more renders than a short one with the same kinds of turns', async () => {
  const renders = async (turns: number) => {
    let count = 0;
    const renderer = new Renderer(model, chatml());
    const text = renderer.text.bind(renderer);
    renderer.text = (...conversation) => {
      count++;
      return text(...conversation);
    };
    const turn: ChatMessage[] = [
      { role: 'user', content: 'Do you have chains?' },
      { role: 'assistant', content: 'Yes.' },
    ];
    const messages = [...Array.from({ length: turns }, () => turn).flat(), ...turn.slice(0, 1)];
    const spans = await new SpanFinder(model, renderer).find(SOURCE, messages);
    expect(isComplete(spans)).toBe(true);
    return count;
  };
  expect(await renders(40)).toBe(await renders(2));
});

it('spans are right with a SentencePiece vocabulary, which adds BOS and spaces', async () => {
  const path = fileURLToPath(new URL('../../vendor/llama.cpp/models/ggml-vocab-llama-spm.gguf', import.meta.url));
  const spm = await Model.load({ path, vocabularyOnly: true });
  try {
    const renderer = new Renderer(spm, chatml().replaceAll('<|im_end|>', '</s>'));
    const { tokens } = await renderer.tokens({}, PLAIN);
    const { messages } = await new SpanFinder(spm, renderer).find({}, PLAIN);
    for (const [index, span] of messages.entries()) {
      const part = tokens.subarray(span?.from, span?.to);
      const text = new TextDecoder().decode(await spm.detokenize(part, { special: true }));
      expect(text.trim()).toBe(`<|im_start|>${PLAIN[index]?.role}\n${PLAIN[index]?.content}</s>`);
    }
  } finally {
    await spm.close();
  }
});
