// By default, the package prints nothing. A logger receives the lines of llama.cpp.
import type { LogLevel } from 'llama-headstart';
import { jsonSchemaToGrammar, Model, setNativeLogger } from 'llama-headstart/native';
import { afterEach, describe, expect, it } from 'vitest';
import { CLEAN, runChild } from '../helpers/children.js';
import { microModel, testModel } from '../helpers/models.js';
import { codeOf } from '../helpers/native.js';

const child = (scenario: string, path: string) => runChild('native/children/log.mjs', [scenario, path]);

describe('by default', () => {
  it('successful calls print nothing', async () => {
    for (const name of ['dense', 'hybrid'] as const) {
      expect(await child('everything', microModel(name))).toEqual(CLEAN);
    }
  });

  it('failing calls print nothing', async () => {
    expect(await child('failures', microModel('dense'))).toEqual(CLEAN);
  });

  it.skipIf(testModel() === undefined)('a real model prints nothing', async () => {
    expect(await child('everything', testModel() as string)).toEqual(CLEAN);
  });
});

describe('setNativeLogger', () => {
  const lines: [LogLevel, string][] = [];
  afterEach(() => {
    setNativeLogger(null);
    lines.length = 0;
  });
  const collect = (level: LogLevel, text: string) => lines.push([level, text]);
  const load = async () => (await Model.load({ path: microModel('dense') })).close();

  it('sends complete lines up to the requested level', async () => {
    setNativeLogger(collect, { level: 'debug' });
    await load();
    expect(lines.some(([, text]) => text.includes('llama_model_loader'))).toBe(true);
    expect(lines.filter(([, text]) => text.includes('\n') || text === '')).toEqual([]);
    expect(new Set(lines.map(([level]) => level))).toContain('info');
    lines.length = 0;
    setNativeLogger(collect, { level: 'error' });
    await load();
    expect(lines.filter(([level]) => level !== 'error')).toEqual([]);
  });

  it('sends only warnings and errors if the option `level` is not set', async () => {
    setNativeLogger(collect);
    expect(await codeOf(() => Model.load({ path: import.meta.filename }))).toBe('MODEL_INVALID');
    expect(lines.length).toBeGreaterThan(0);
    expect(lines.filter(([level]) => level !== 'error' && level !== 'warn')).toEqual([]);
  });

  it('sends a warning about keywords of a JSON schema that a grammar cannot express', async () => {
    setNativeLogger(collect);
    await jsonSchemaToGrammar({ type: 'string', pattern: '^[' });
    expect(lines).toEqual([['warn', expect.stringContaining('pattern ^[ is not supported')]]);
  });

  it("sends the lines of llama.cpp's library `common`", async () => {
    setNativeLogger(collect, { level: 'debug' });
    const model = await Model.load({ path: microModel('dense') });
    lines.length = 0;
    await model.render({ messages: [{ role: 'user', content: 'Hi' }], chatTemplate: '{{ messages[0].content }}' });
    await model.close();
    expect(lines.map(([, text]) => text).join('\n')).toMatch(/template/i);
  });

  it('sends no more lines to a logger that was removed or replaced', async () => {
    setNativeLogger(collect, { level: 'debug' });
    setNativeLogger(null);
    await load();
    setNativeLogger(collect, { level: 'debug' });
    const others: string[] = [];
    setNativeLogger((_, text) => others.push(text), { level: 'debug' });
    await load();
    expect(lines).toEqual([]);
    expect(others.length).toBeGreaterThan(0);
  });

  it('keeps sending lines to a logger that throws, and emits a single process warning', async () => {
    const { stderr, ...end } = await child('throwing logger', microModel('dense'));
    expect(end).toEqual({ code: 0, signal: null, stdout: '' });
    expect(stderr.match(/LOGGER_THREW/g)).toHaveLength(1);
    expect(stderr).toContain('from the logger');
  });

  it('does not keep the process alive if the logger is never removed', async () => {
    expect(await child('logger that is never removed', microModel('dense'))).toEqual(CLEAN);
  });

  it('refuses loggers and levels of wrong types', async () => {
    for (const logger of [undefined, 5, 'x', {}]) {
      expect(await codeOf(() => setNativeLogger(logger as never))).toBe('INVALID_ARGUMENT');
    }
    for (const level of ['', 'verbose', 'ERROR', 3, null]) {
      const options = { level: level as never };
      expect(await codeOf(() => setNativeLogger(collect, options)), String(level)).toBe(
        level === null ? 'none' : 'INVALID_ARGUMENT',
      );
    }
  });
});
