// Reports name the message or tool that has a token. The name is either right or absent, with every chat template of
// llama.cpp.
import type { ChatMessage } from 'llama-headstart';
import { commonPrefixLength, ownerOfToken, Renderer, type ToolDefinition } from 'llama-headstart/internal';
import type { Model } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CHAT_TEMPLATES, loadMarkupModel } from '../helpers/markup-vocabulary.js';
import { SYSTEM_PROMPT, TOOLS } from '../helpers/prompts.js';
import { variants } from '../helpers/soak.js';

/** Repeated contents, contents inside other contents, and a short content that is also a word of the markup. */
const CONVERSATION: readonly ChatMessage[] = [
  { role: 'user', content: '\n  Do you have chains?\n' },
  { role: 'assistant', content: 'user', reasoning: 'They ask for chains.' },
  { role: 'user', content: 'Do you have chains? Say "ok".' },
  {
    role: 'assistant',
    content: '',
    toolCalls: [{ toolCallId: 'abcdefgh1', toolName: 'find_part', input: { name: 'chains' } }],
  },
  { role: 'tool', toolCallId: 'abcdefgh1', toolName: 'find_part', content: '{"stock": "four"}\n' },
  { role: 'assistant', content: 'ok' },
  { role: 'user', content: 'ok' },
];

/** Mistral-Nemo's chat template writes the system prompt and the tools near the end. */
const TEMPLATES = variants(CHAT_TEMPLATES, ([name], index) => index % 5 === 0 || name.includes('Nemo'));

let model: Model;

beforeAll(async () => {
  model = await loadMarkupModel();
});

afterAll(() => model.close());

interface Request {
  systemPrompt: string;
  tools: readonly ToolDefinition[];
  messages: readonly ChatMessage[];
}

const REQUEST: Request = { systemPrompt: SYSTEM_PROMPT, tools: TOOLS, messages: CONVERSATION };

/** Each row: the owner of a change, and the changed request. */
const CHANGES: [owner: string, changed: Request][] = [
  ['system 0', { ...REQUEST, systemPrompt: SYSTEM_PROMPT.replace('bicycles', 'boats') }],
  ...TOOLS.map((tool, index): [string, Request] => [
    `tool ${index}`,
    { ...REQUEST, tools: TOOLS.with(index, { ...tool, description: `Now ${tool.description}` }) },
  ]),
  ...CONVERSATION.map((message, index): [string, Request] => [
    `message ${index}`,
    { ...REQUEST, messages: CONVERSATION.with(index, changed(message)) },
  ]),
];

function changed(message: ChatMessage): ChatMessage {
  return message.role === 'assistant' && message.toolCalls !== undefined
    ? { ...message, toolCalls: message.toolCalls.map((call) => ({ ...call, input: { name: 'wheels' } })) }
    : { ...message, content: `No. ${message.content}` };
}

describe('the owner of the first token that a change affects', () => {
  const named: string[] = [];

  it.each(TEMPLATES)('is the changed message or tool, or unknown: %s', async (_, chatTemplate) => {
    const renderer = new Renderer(model, chatTemplate);
    const render = ({ messages, ...source }: Request) => renderer.tokens(source, messages);
    const prompt = await render(REQUEST);
    for (const [owner, request] of CHANGES) {
      const other = await render(request);
      const index = commonPrefixLength(prompt.tokens, other.tokens);
      if (index === prompt.tokens.length) {
        continue; // the chat template leaves the message out
      }
      const { messages, ...source } = REQUEST;
      const found = ownerOfToken(model, prompt, index, source, messages);
      if (found !== undefined) {
        expect(found === 'opening' ? found : `${found.part} ${found.index}`, owner).toBe(owner);
        named.push(owner);
      }
    }
  });

  it('is known for nearly all changes', () => {
    expect(named.length).toBeGreaterThan(0.9 * TEMPLATES.length * CHANGES.length);
  });
});
