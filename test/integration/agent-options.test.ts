// What is wrong with an agent's options is told before anything is done for them: the model of these tests is nowhere.
import { AgentServer, resolveModel } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { startAgent } from '../helpers/agents.js';

const failsWith = (code: string, message: RegExp | string) =>
  expect.objectContaining({ name: 'HeadstartError', code, message: expect.stringMatching(message) });

const recursive = { type: 'object', properties: { a: { $ref: '#/properties/a' } } };

describe('an agent', () => {
  it.each<[what: string, options: object, code: string, message: RegExp]>([
    [
      'a name in `sampling`',
      { sampling: { temprature: 1 } },
      'INVALID_ARGUMENT',
      /`temprature` in `sampling`: did you mean `temperature`/,
    ],
    [
      'the schema of a tool',
      { tools: [{ name: 'a', parameters: recursive }] },
      'SCHEMA_INVALID',
      /`parameters` of the tool "a"/,
    ],
    [
      'a server',
      { mcpServers: [{ name: 'a', url: 'http://localhost/mcp' }] },
      'CONFIG_INVALID',
      /`url` in `mcpServers\[0\]`: it belongs to a server of `type` "http" or "sse"/,
    ],
    [
      'the source of an adapter',
      { model: { loras: [{ source: 'a.gguf' }, { source: { type: 'hub', repo: 'a/b' } }] } },
      'CONFIG_INVALID',
      /`source` in `loras\[1\]`.*did you mean "huggingface"/,
    ],
    [
      'cells that one session would not fit in',
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
  ])('says at once what is wrong with %s', async (_, { model, ...options }: { model?: object }, code, message) => {
    const initialized = AgentServer.initialize({ model: { source: '/nowhere/model.gguf', ...model }, ...options });
    await expect(initialized).rejects.toThrow(failsWith(code, message));
  });

  it('with nothing wrong but that says that the model is nowhere, and what was perhaps meant', async () => {
    const start = (source: string) => AgentServer.initialize({ model: { source } });
    await expect(start('/nowhere/model.gguf')).rejects.toThrow(failsWith('MODEL_NOT_FOUND', '/nowhere/model.gguf'));
    await expect(start('bartowski/Some-GGUF')).rejects.toThrow(
      failsWith('MODEL_NOT_FOUND', 'of the Hub is "hf:bartowski/Some-GGUF"'),
    );
  });

  it('says of a chat template that it is none, and that it refuses a conversation', async () => {
    const none = await startAgent({ chatTemplate: '{% for %}' });
    await expect(none.createSession()).rejects.toThrow(failsWith('CHAT_TEMPLATE_INVALID', ''));
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

describe('options of other calls', () => {
  it('that are none are refused, with the right name', async () => {
    const resolved = (options: object) => resolveModel('/nowhere/model.gguf', options);
    await expect(resolved({ useHfParams: true })).rejects.toThrow(
      failsWith('CONFIG_INVALID', 'here it is `generationConfig`'),
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
