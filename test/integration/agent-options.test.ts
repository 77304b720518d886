// Tests which errors and warnings the options of an agent cause: invalid options, chat templates, and long contexts.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { AgentServer, type ErrorCode, type Logger, resolveModel } from 'llama-headstart';
import { describe, expect, it, onTestFinished } from 'vitest';
import { type AgentSettings, agentOptions, startAgent } from '../helpers/agents.js';
import { failsWith } from '../helpers/errors.js';
import { withChatTemplate } from '../helpers/gguf-metadata.js';
import { microModel } from '../helpers/models.js';
import { temporaryDirectory } from '../helpers/native.js';

const recursive = { type: 'object', properties: { a: { $ref: '#/properties/a' } } };

describe('an agent', () => {
  it.each<[what: string, options: object, code: ErrorCode, message: RegExp]>([
    [
      'an unknown name in `sampling`',
      { sampling: { temprature: 1 } },
      'INVALID_ARGUMENT',
      /`temprature` in `sampling`: did you mean `temperature`/,
    ],
    [
      'an invalid schema of a tool',
      { tools: [{ name: 'a', parameters: recursive }] },
      'SCHEMA_INVALID',
      /`parameters` of the tool "a"/,
    ],
    [
      'an invalid option of an MCP server',
      { mcpServers: [{ name: 'a', url: 'http://localhost/mcp' }] },
      'CONFIG_INVALID',
      /`url` in `mcpServers\[0\]`: it belongs to a server of `type` "http" or "sse"/,
    ],
    [
      'an invalid source of an adapter',
      { model: { loras: [{ source: 'a.gguf' }, { source: { type: 'hub', repo: 'a/b' } }] } },
      'CONFIG_INVALID',
      /`source` in `loras\[1\]`.*did you mean "huggingface"/,
    ],
    [
      'too few cells for one session',
      { model: { contextSize: 4096, kvCells: 2048 } },
      'CONFIG_INVALID',
      /`kvCells` \(2048\).*`contextSize` \(4096\)/,
    ],
    [
      'more sequences than a batch has tokens',
      { model: { nSeqMax: 64, batchSize: 32 } },
      'CONFIG_INVALID',
      /\(64 \+ 4\) to be at most 32, the smallest of 256 and `batchSize` \(32\)/,
    ],
  ])(
    'reports %s before it looks for the model',
    async (_, { model, ...options }: { model?: object }, code, message) => {
      const initialized = AgentServer.initialize({ model: { source: '/nowhere/model.gguf', ...model }, ...options });
      await expect(initialized).rejects.toThrow(failsWith(code, message));
    },
  );

  it('reports a missing model, and suggests the Hub if the path looks like a repository', async () => {
    const start = (source: string) => AgentServer.initialize({ model: { source } });
    await expect(start('/nowhere/model.gguf')).rejects.toThrow(failsWith('MODEL_NOT_FOUND', '/nowhere/model.gguf'));
    await expect(start('bartowski/Some-GGUF')).rejects.toThrow(
      failsWith('MODEL_NOT_FOUND', 'For a repository of the Hub, use "hf:bartowski/Some-GGUF"'),
    );
  });

  it('reports an invalid chat template, and a chat template that refuses a conversation', async () => {
    await expect(startAgent({ chatTemplate: '{% for %}' })).rejects.toThrow(failsWith('CHAT_TEMPLATE_INVALID', ''));
    const strict = await startAgent({
      chatTemplate:
        "{% for message in messages %}{% if message.role == 'assistant' %}{{ raise_exception('one turn only') }}{% endif %}" +
        '{{ message.content }}{% endfor %}',
    });
    const session = await strict.createSession();
    await session.send('Hello', { maxTokens: 2 });
    await expect(session.send('And now?', { maxTokens: 2 })).rejects.toThrow(
      failsWith('CHAT_TEMPLATE_FAILED', 'one turn only'),
    );
    expect(session.messages).toHaveLength(2);
  });
});

describe('a chat template', () => {
  const path = fileURLToPath(new URL('../../vendor/llama.cpp/models/templates/Qwen3-Coder.jinja', import.meta.url));
  it.each<[string, string, RegExp]>([
    ['the name of a template', 'llama3', /text of a template.*leave out `chatTemplate`/],
    ['the path of a missing file', 'templates/qwen.jinja', /got "templates\/qwen\.jinja".*a path or the name/],
    ['the path of an existing file', path, /path of a file: read the file, and pass its text/],
    ['a text', 'You are a helpful assistant.', /got "You are a helpful assistant\."/],
    ['white space', ' ', /Jinja template that writes the messages/],
    [
      'a template that reads the messages under another name',
      '{% for m in history %}{{ m.content }}{% endfor %}',
      /Jinja template/,
    ],
    ['a template that writes only the first message', '{{ messages[0].content }}', /writes the messages/],
    ['a template that writes only roles', '{% for m in messages %}{{ m.role }}{% endfor %}', /writes the messages/],
  ])('that leaves out the messages of the user is refused at the start: %s', async (_, chatTemplate, message) => {
    await expect(startAgent({ chatTemplate })).rejects.toThrow(failsWith('CHAT_TEMPLATE_INVALID', message));
  });

  it('that writes only the newest message is accepted, because translation models have such templates', async () => {
    const agent = await startAgent({ chatTemplate: '{{ messages[-1].content }}' });
    const session = await agent.createSession();
    expect((await session.send('Hello', { maxTokens: 3 })).usage.outputTokens).toBe(3);
  });

  it("in the model file is refused only at the first session if it omits the user's messages", async () => {
    const source = join(await temporaryDirectory(), 'blank.gguf');
    await writeFile(source, withChatTemplate(await readFile(microModel('dense')), ' '));
    const agent = await startAgent({ source });
    const refusal = failsWith(
      'CHAT_TEMPLATE_INVALID',
      "The model's own chat template leaves out the messages of the user",
    );
    await expect(agent.createSession()).rejects.toThrow(refusal);
    await expect(agent.createSession({ systemPrompt: 'Hi.' })).rejects.toThrow(refusal);
    expect((await agent.complete('The chain is', { maxTokens: 3 })).usage.outputTokens).toBe(3);
    // llama.cpp has a built-in chat template with the name "chatml".
    const session = await (await startAgent({ source, chatTemplate: 'chatml' })).createSession();
    expect((await session.send('Hello', { maxTokens: 3 })).usage.outputTokens).toBe(3);
  });
});

describe('an unknown or invalid option', () => {
  it('of `resolveModel`, `templateCache` or `countTokens` is refused with a suggestion', async () => {
    const resolved = (options: object) => resolveModel('/nowhere/model.gguf', options);
    await expect(resolved({ useHfParams: true })).rejects.toThrow(
      failsWith('CONFIG_INVALID', 'use `generationConfig` here'),
    );
    await expect(resolved({ onprogress: () => {} })).rejects.toThrow(failsWith('CONFIG_INVALID', 'mean `onProgress`'));
    await expect(resolved({ signal: {} })).rejects.toThrow(failsWith('CONFIG_INVALID', 'to be an AbortSignal'));
    const agent = await startAgent();
    const { templateCache } = agent;
    await expect(templateCache.warm({} as never)).rejects.toThrow(failsWith('INVALID_ARGUMENT', 'to be an array'));
    await expect(templateCache.warm([], { onprogress: () => {} } as never)).rejects.toThrow(
      failsWith('INVALID_ARGUMENT', 'mean `onProgress`'),
    );
    await expect(templateCache.verify({ abort: 1 } as never)).rejects.toThrow(
      failsWith('INVALID_ARGUMENT', 'Unknown option `abort`'),
    );
    await expect(agent.countTokens('text', { system: 'x' } as never)).rejects.toThrow(
      failsWith('CONFIG_INVALID', 'mean `systemPrompt`'),
    );
  });
});

describe('a context longer than the training length', () => {
  /** Options for a context that is longer than the model's training length of 8,192 tokens. */
  const longer = { contextSize: 9000, kvCells: 9216, nSeqMax: 1, maxResidentTemplates: 1 };

  /** Returns the process warnings and the log lines that one agent causes. */
  async function warningsOf(
    settings: AgentSettings,
    withLogger: boolean,
  ): Promise<{ process: string[]; logger: string[] }> {
    const warnings: string[] = [];
    const lines: string[] = [];
    const onWarning = (warning: Error & { code?: string }) => {
      if (warning.code === 'CONTEXT_OVER_TRAINING') {
        warnings.push(warning.message);
      }
    };
    process.on('warning', onWarning);
    onTestFinished(() => void process.off('warning', onWarning));
    const logger: Logger = (level, message) => void lines.push(`${level}: ${message}`);
    const agent = await startAgent({ ...settings, ...(withLogger && { logger }) });
    await agent.createSession();
    await agent.createSession();
    await agent.close();
    await new Promise(setImmediate); // the warning events come in the next tick
    return { process: warnings, logger: lines };
  }

  it('causes one process warning, or one log line if there is a logger', async () => {
    const expected = expect.stringMatching(/`contextSize` is 9000 tokens, and the model was trained for 8192/);
    expect(await warningsOf(longer, false)).toEqual({ process: [expected], logger: [] });
    const { process, logger } = await warningsOf(longer, true);
    expect({ process, logger }).toEqual({ process: [], logger: [expected] });
  });

  it('causes no warning if RoPE is scaled as the warning suggests', async () => {
    const settings = { ...longer, ropeScaling: 'yarn', ropeFrequencyScale: 8192 / 9000 } as const;
    expect(await warningsOf(settings, true)).toEqual({ process: [], logger: [] });
  });

  it.each(['dense', 'sliding-window', 'recurrent', 'hybrid', 'long-rope'] as const)(
    'is never the default, with the %s model',
    async (name) => {
      const settings: AgentSettings = { name };
      const options = agentOptions(settings);
      delete options.model.contextSize;
      const lines: string[] = [];
      const agent = await AgentServer.initialize({ ...options, logger: (_, message) => void lines.push(message) });
      await agent.close();
      expect(lines).toEqual([]);
    },
  );
});

describe('RoPE options', () => {
  it('change the replies', async () => {
    const texts = new Set<string>();
    for (const rope of [
      {},
      { ropeScaling: 'linear', ropeFrequencyScale: 0.25 },
      { ropeScaling: 'yarn', ropeFrequencyScale: 0.25 },
      { ropeFrequencyBase: 1000 },
    ] as const) {
      const agent = await startAgent(rope);
      const session = await agent.createSession();
      texts.add((await session.send('Hello', { maxTokens: 24 })).text);
    }
    expect(texts.size).toBe(4);
  });
});
