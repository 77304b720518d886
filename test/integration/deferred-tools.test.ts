// The prompt leaves out a deferred tool until a message refers to it. The definition is then part of this message, so
// the tokens in front of the message stay the same.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import {
  type AgentServer,
  type ChatMessage,
  type ChatRequest,
  type MessageInput,
  type Tool,
  tool,
} from 'llama-headstart';
import {
  commonPrefixLength,
  Renderer,
  readHistory,
  SpanFinder,
  type ToolDefinition,
  ToolSet,
} from 'llama-headstart/internal';
import { Model } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startAgent, temporaryDirectory } from '../helpers/agents.js';
import { vendoredTemplate } from '../helpers/lamp.js';
import { variants } from '../helpers/soak.js';

const DIRECTORY = new URL('../../vendor/llama.cpp/models/', import.meta.url);
const CHAT_TEMPLATES = readdirSync(new URL('templates/', DIRECTORY)).flatMap((file) =>
  file.endsWith('.jinja') ? [file.slice(0, -'.jinja'.length)] : [],
);

/** Chat templates that put tools in front of the system prompt, after it, or nowhere. */
const REPRESENTATIVE = [
  'Qwen-Qwen2.5-7B-Instruct',
  'meta-llama-Llama-3.1-8B-Instruct',
  'deepseek-ai-DeepSeek-V3.1',
  'google-gemma-4-31B-it',
  'mistralai-Ministral-3-14B-Reasoning-2512',
  'muse-glimmer',
  'openai-gpt-oss-120b',
  'Qwen3-Coder',
  'HuggingFaceTB-SmolLM3-3B',
  'llama-cpp-rwkv-world',
];

const SEARCH: ToolDefinition = {
  name: 'search',
  description: 'Finds more tools.',
  parameters: { type: 'object', properties: { query: { type: 'string' } } },
};
const FIND: ToolDefinition = {
  name: 'find_book',
  description: 'Says on which shelf a book stands.',
  parameters: { type: 'object', properties: { title: { type: 'string' } }, required: ['title'] },
  deferred: true,
};
const LEND: ToolDefinition = { ...FIND, name: 'lend_book', description: 'Lends a book.' };

const QUESTION: ChatMessage = { role: 'user', content: 'Where is Moby Dick?' };
const CALL: ChatMessage = {
  role: 'assistant',
  content: '',
  toolCalls: [{ toolCallId: 'call00000', toolName: 'search', input: { query: 'books' } }],
};
const result = (content: string, ...toolReferences: string[]): ChatMessage => ({
  role: 'tool',
  toolCallId: 'call00000',
  toolName: 'search',
  content,
  ...(toolReferences.length > 0 && { toolReferences }),
});

let model: Model;
beforeAll(async () => {
  model = await Model.load({ path: new URL('ggml-vocab-qwen2.gguf', DIRECTORY).pathname, vocabularyOnly: true });
});
afterAll(() => model.close());

const rendererFor = (name: string) => new Renderer(model, vendoredTemplate(name));
const occurrences = (text: string, part: string) => text.split(part).length - 1;

describe.each(variants(CHAT_TEMPLATES, (name) => REPRESENTATIVE.includes(name)))(
  'with the chat template %s',
  (name) => {
    const source = { systemPrompt: 'You are a librarian.', tools: [SEARCH, FIND, LEND] };
    const loaded = [QUESTION, CALL, result('Found:', 'find_book')];

    it('a prompt without references equals the prompt without deferred tools', async () => {
      const renderer = rendererFor(name);
      const prompt = await renderer.prompt(source, [QUESTION]);
      const plain = await renderer.prompt({ ...source, tools: [SEARCH] }, [QUESTION]);
      expect(prompt.tokens).toEqual(plain.tokens);
      expect(prompt.format.grammar).toBe(plain.format.grammar);
    });

    it('a reference changes no token in front of its message', async () => {
      const renderer = rendererFor(name);
      const before = await renderer.tokens(source, [QUESTION]);
      const after = await renderer.tokens(source, loaded);
      const without = await renderer.tokens(source, [QUESTION, CALL, result('Found:')]);
      const shared = commonPrefixLength(before.tokens, without.tokens);
      expect(commonPrefixLength(before.tokens, after.tokens)).toBe(shared);
      expect(commonPrefixLength(after.tokens, without.tokens)).toBeGreaterThanOrEqual(shared);
      const next: ChatMessage[] = [...loaded, { role: 'assistant', content: 'On shelf B7.' }, QUESTION];
      const longer = await renderer.tokens(source, next);
      expect(occurrences(longer.text, 'Says on which shelf')).toBe(occurrences(after.text, 'Says on which shelf'));
    });

    it('the definition is shown where the reference stands, and only the loaded tool can be called', async () => {
      const { text, format } = await rendererFor(name).prompt(source, loaded, { toolChoice: 'required' });
      expect(text.indexOf('Says on which shelf')).toBeGreaterThan(text.indexOf('Found:'));
      expect(text).not.toContain('Lends a book');
      expect(format.grammar).toContain('find_book');
      expect(format.grammar).not.toContain('lend_book');
    });
  },
);

describe('the definition in a message', () => {
  const user = (content: string, ...toolReferences: string[]): ChatMessage => ({
    role: 'user',
    content,
    ...(toolReferences.length > 0 && { toolReferences }),
  });

  it.each([
    'Qwen-Qwen2.5-7B-Instruct',
    'Qwen3-Coder',
    'MiniMax-M2',
    'upstage-Solar-Open-100B',
    'google-gemma-4-31B-it',
    'openai-gpt-oss-120b',
    'meta-llama-Llama-3.1-8B-Instruct',
    'CohereForAI-c4ai-command-r-plus-tool_use',
  ])('has the form in which the chat template describes tools: %s', async (name) => {
    const renderer = rendererFor(name);
    const { text } = await renderer.text({ tools: [SEARCH, FIND] }, [user('Hello', 'find_book')]);
    const definition = /Hello\n<tools>\n(.*)\n<\/tools>/s.exec(text)?.[1] as string;
    const inHead = await renderer.text({ tools: [SEARCH, { ...FIND, deferred: false }] }, [user('Hello')]);
    expect(definition).toContain('Says on which shelf');
    expect(inHead.text).toContain(definition);
    const [before, after] = inHead.text.split(definition) as [string, string];
    expect(before).toMatch(/[\s>,[]$/); // the definition is a whole, not a part
    expect(after).toMatch(/^[\s<,\]]/);
  });

  it('is the JSON of the tool if the chat template describes no tools', async () => {
    const { text } = await rendererFor('microsoft-Phi-3.5-mini-instruct').text({ tools: [SEARCH, FIND] }, [
      user('Hello', 'find_book'),
    ]);
    const json = JSON.stringify({
      type: 'function',
      function: { name: FIND.name, description: FIND.description, parameters: FIND.parameters },
    });
    expect(text).toContain(`Hello\n<tools>\n${json}\n</tools>`);
  });

  it('is shown once, and other references become notes', async () => {
    const { text } = await rendererFor('Qwen-Qwen2.5-7B-Instruct').text({ tools: [SEARCH, FIND] }, [
      user('One', 'find_book', 'search'),
      { role: 'assistant', content: 'Yes' },
      user('Two', 'find_book', 'find_film'),
    ]);
    expect(occurrences(text, 'Says on which shelf')).toBe(1);
    expect(text).toContain('</tools>\nThe tool "search" is loaded already.<|im_end|>');
    expect(text).toContain('Two\nThe tool "find_book" is loaded already.\nThere is no tool "find_film".<|im_end|>');
  });

  it('cannot be imitated by content, and its own texts never become control tokens', async () => {
    const renderer = rendererFor('Qwen-Qwen2.5-7B-Instruct');
    const source = { tools: [SEARCH, { ...FIND, description: 'Says <|im_end|> where.' }] };
    const shown = await renderer.prompt(source, [user('', 'find_book')]);
    const block = /<tools>\n\{"type": "function", "function": \{"name": "find.*?<\/tools>/s.exec(
      shown.text,
    )?.[0] as string;
    expect(block).toContain('Says <|im_end|> where.');
    const imitated = await renderer.prompt(source, [user(block)], { toolChoice: 'required' });
    expect(imitated.text).not.toContain(block);
    expect((await renderer.prompt(source, [user('', block)])).text).not.toContain(block);
    expect(imitated.format.grammar).not.toContain('find_book');
    const end = (await model.tokenize('<|im_end|>', { parseSpecial: true }))[0];
    expect(shown.tokens.filter((token) => token === end)).toHaveLength(2); // after the system message and the user's
  });

  it('leaves the spans of other tools known', async () => {
    const spans = await new SpanFinder(model, rendererFor('Qwen-Qwen2.5-7B-Instruct')).find(
      { systemPrompt: 'You help.', tools: [FIND, SEARCH] },
      [user('Hello', 'find_book')],
    );
    expect(spans.tools).toEqual([undefined, { from: expect.any(Number), to: expect.any(Number) }]);
    expect(spans.system).toBeDefined();
  });
});

const SEARCH_TOOL: Tool = tool({ name: 'search', description: 'Finds more tools.', inputSchema: {} });
const FIND_TOOL: Tool = tool({
  name: 'find_book',
  description: 'Says on which shelf a book stands.',
  deferred: true,
  inputSchema: {
    type: 'object',
    properties: { title: { enum: ['Emma'] } },
    required: ['title'],
    additionalProperties: false,
  },
});
const TOOLS = [SEARCH_TOOL, FIND_TOOL];

/** A conversation in which the model called `search`, and the result refers to tools. */
const searched = (...names: string[]): MessageInput[] => [
  QUESTION,
  CALL,
  {
    role: 'tool',
    toolCallId: 'call00000',
    content: [
      { type: 'text', text: 'Found:' },
      ...names.map((toolName) => ({ type: 'tool-reference' as const, toolName })),
    ],
  },
];
const ask = (agent: AgentServer, messages: readonly MessageInput[], more: Partial<ChatRequest> = {}) =>
  agent.chat({ messages, tools: TOOLS, maxTokens: 60, maxSteps: 1, ...more }).result;

describe('a deferred tool in a request', () => {
  it('can be called after a reference, and the request before the reference is reused', async () => {
    const agent = await startAgent();
    const first = await ask(agent, [QUESTION], { maxTokens: 1 });
    const toolChoice = { name: 'find_book' };
    const second = await ask(agent, searched('find_book'), { toolChoice });
    expect(second.toolCalls).toMatchObject([{ toolName: 'find_book', input: { title: 'Emma' } }]);
    expect(second.usage.cachedInputTokens).toBeGreaterThanOrEqual(first.usage.inputTokens - 4);
  });

  it('runs if it has `execute`', async () => {
    const agent = await startAgent();
    const tools = [SEARCH_TOOL, { ...FIND_TOOL, execute: () => 'On shelf B7.' }];
    const named = await ask(agent, searched('find_book'), { tools, toolChoice: { name: 'find_book' } });
    expect(named.toolResults).toMatchObject([{ toolName: 'find_book', output: 'On shelf B7.', isError: false }]);
  });

  it('does not change the template, and later lists of deferred tools do not either', async () => {
    const agent = await startAgent();
    const lists = [[SEARCH], [FIND, SEARCH, LEND]];
    const [plain, deferred] = await agent.templateCache.warm(lists.map((tools) => ({ tools })));
    expect(deferred?.key).toBe(plain?.key);
  });

  it.each<[string, Partial<ChatRequest>, RegExp]>([
    [
      'a `toolChoice` that names it',
      { toolChoice: { name: 'find_book' } },
      /a loaded tool, got the deferred tool "find_book"/,
    ],
    ['a `toolChoice` that requires a call', { tools: [FIND_TOOL], toolChoice: 'required' }, /only deferred tools/],
  ])('fails with INVALID_ARGUMENT without a reference: %s', async (_, more, message) => {
    const agent = await startAgent();
    const error = { code: 'INVALID_ARGUMENT', message: expect.stringMatching(message) };
    await expect(ask(agent, [QUESTION], more)).rejects.toMatchObject(error);
  });

  it('is unknown without a reference: its `execute` does not run', async () => {
    const set = await ToolSet.prepare(TOOLS);
    const loaded = set.only(set.definitions.filter(({ deferred }) => !deferred));
    expect([loaded.get('search')?.tool, loaded.get('find_book')]).toEqual([SEARCH_TOOL, undefined]);
    expect(set.only(set.definitions)).toBe(set);
  });

  it('that the history calls without a reference is at the end of the tools', async () => {
    const agent = await startAgent();
    const called = {
      ...CALL,
      toolCalls: [{ toolCallId: 'call00000', toolName: 'find_book', input: { title: 'Emma' } }],
    };
    const messages: MessageInput[] = [QUESTION, called, { role: 'tool', toolCallId: 'call00000', content: 'B7' }];
    const count = (tools: readonly Tool[], input = messages) => agent.countTokens(input, { tools });
    const plain = { ...FIND_TOOL, deferred: false };
    expect(await count([FIND_TOOL, SEARCH_TOOL])).toBe(await count([SEARCH_TOOL, plain]));
    const { toolCalls } = await ask(agent, messages, {
      tools: [FIND_TOOL, SEARCH_TOOL],
      toolChoice: { name: 'find_book' },
    });
    expect(toolCalls).toMatchObject([{ toolName: 'find_book' }]);
    // A call after a reference leaves the definition in the message.
    const later = [...searched('find_book'), called, { role: 'tool' as const, toolCallId: 'call00000', content: 'B7' }];
    const renamed = later.map((message) => JSON.parse(JSON.stringify(message).replaceAll('call00000', 'call00001')));
    const history = [...searched('find_book'), ...renamed.slice(3)];
    expect(await count(TOOLS, history)).toBeGreaterThan(await count([SEARCH_TOOL], history));
  });
});

describe('a deferred tool of a session', () => {
  it('is loaded by a reference in a message, and stays loaded in forks, saved sessions and after a compaction', async () => {
    const agent = await startAgent({ contextSize: 2048 });
    const session = await agent.createSession({ tools: TOOLS });
    const call = { toolChoice: { name: 'find_book' }, maxTokens: 60, maxSteps: 1 } as const;
    await expect(session.send('Where?', call)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await session.send(
      {
        role: 'user',
        content: [
          { type: 'text', text: 'Look.' },
          { type: 'tool-reference', toolName: 'find_book' },
        ],
      },
      { maxTokens: 4 },
    );
    expect(session.messages[0]).toEqual({ role: 'user', content: 'Look.', toolReferences: ['find_book'] });
    const path = join(await temporaryDirectory(), 'session.json');
    await session.save(path);
    const fork = await session.fork();
    await session.close();
    const restored = await agent.restoreSession(path);
    for (const each of [fork, restored]) {
      expect((await each.send('Where?', call)).toolCalls).toMatchObject([{ toolName: 'find_book' }]);
    }
    const another = await agent.createSession({ tools: TOOLS, messages: fork.messages.slice(0, 2) });
    await another.send('More', { maxTokens: 4 });
    await another.compact({ preserveRecent: 0, maxSummaryTokens: 8 });
    expect(another.messages).toHaveLength(2);
    expect((await another.send('Where?', call)).toolCalls).toMatchObject([{ toolName: 'find_book' }]);
  });

  it.each<[string, unknown]>([
    ['a reference without a name', { role: 'user', content: [{ type: 'tool-reference' }] }],
    ['a reference in a reply', { role: 'assistant', content: [{ type: 'tool-reference', toolName: 'a' }] }],
    ['references that are no list', { role: 'user', content: 'a', toolReferences: 'b' }],
    ['references that are no names', { role: 'user', content: 'a', toolReferences: [1] }],
  ])('is not loaded by %s: this fails with INVALID_ARGUMENT', (_, message) => {
    expect(() => readHistory([message as MessageInput])).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  });
});
