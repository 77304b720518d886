import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseModelSource, resolveAgentOptions, resolveRetryConfig } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

const invalid = (message: RegExp | string) =>
  expect.objectContaining({ code: 'CONFIG_INVALID', message: expect.stringMatching(message) });

describe('a model source', () => {
  it.each([
    ['model.gguf', { type: 'local', path: 'model.gguf' }],
    ['C:\\models\\model.gguf', { type: 'local', path: 'C:\\models\\model.gguf' }],
    ['hf:owner/name', { type: 'huggingface', repo: 'owner/name' }],
    ['hf:owner/name:Q8_0', { type: 'huggingface', repo: 'owner/name', quantization: 'Q8_0' }],
    ['hf:owner/name/q/file.gguf', { type: 'huggingface', repo: 'owner/name', filename: 'q/file.gguf' }],
    ['huggingface:owner/name', { type: 'huggingface', repo: 'owner/name' }],
    ['https://example.org/model.gguf', { type: 'url', url: 'https://example.org/model.gguf' }],
    [
      'https://huggingface.co/owner/name/blob/main/q%20x/file.gguf',
      { type: 'huggingface', repo: 'owner/name', revision: 'main', filename: 'q x/file.gguf' },
    ],
    [
      'https://huggingface.co/owner/name/resolve/v2%2Fbeta/100%.gguf',
      { type: 'huggingface', repo: 'owner/name', revision: 'v2/beta', filename: '100%.gguf' },
    ],
  ])('may be written as %s', (short, source) => {
    expect(parseModelSource(short)).toEqual(source);
  });

  it.each([
    [{ type: 'huggingFace', repo: 'a/b' }, 'did you mean "huggingface"'],
    [{ type: 'HuggingFace', repo: 'a/b' }, 'did you mean "huggingface"'],
    [{ type: 'hugging_face', repo: 'a/b' }, 'did you mean "huggingface"'],
    [{ type: 'hf', repo: 'a/b' }, 'did you mean "huggingface"'],
    [{ type: 'file', path: 'a' }, 'did you mean "local"'],
    [{ type: 'huggingface', repo: 'a/b', fileName: 'x' }, '`fileName` in `source`: did you mean `filename`'],
    [{ type: 'huggingface', repo: 'a/b', quantisation: 'x' }, 'did you mean `quantization`'],
    [{ type: 'huggingface' }, 'Expected `repo` in `source` of type "huggingface"'],
    [{ type: 'local' }, 'Expected `path`'],
    [{ type: 'url' }, 'Expected `url`'],
    [{ type: 'huggingface', repo: 'https://huggingface.co/a/b' }, '"owner/name"'],
    [{ type: 'huggingface', repo: '../..' }, '"owner/name"'],
    [{ type: 'huggingface', repo: 'a/b', filename: '../c.gguf' }, '`filename`.*relative path'],
    [
      { type: 'huggingface', repo: 'a/b', filename: 'c.gguf', quantization: 'Q8_0' },
      '`filename` or `quantization`.*both',
    ],
    [{ type: 'huggingface', repo: 'a/b', endpoint: 'ftp://x' }, '`endpoint`.*http or https'],
    [{ type: 'url', url: 'ftp://x/y.gguf' }, '`url`.*http or https'],
    [{ type: 'url', url: 'https://ada:secret@x/y.gguf' }, '`url`.*http or https address without user and password'],
    [{ type: 'url', url: 'https://x/y.gguf', headers: ['x-key: secret'] }, '`headers`.*an object of strings'],
    [{ type: 'url', url: 'https://x/y.gguf', sha256: 'abc' }, '`sha256`.*64 hex digits'],
    ['hf:owner', 'owner/name:QUANTIZATION'],
    ['', 'Expected `source` to be a path'],
  ])('of the form %j is refused with a suggestion or the expected value', (source, message) => {
    expect(() => parseModelSource(source)).toThrow(invalid(message));
  });

  it("may have the form of the specification's example", () => {
    const { model, cache, debug } = resolveAgentOptions({
      model: {
        source: {
          type: 'huggingface',
          repo: 'bartowski/Qwen2.5-Coder-1.5B-Instruct-GGUF',
          filename: 'Qwen2.5-Coder-1.5B-Instruct-Q4_K_M.gguf',
        },
        batchSize: 512,
        nSeqMax: 4,
        nThreads: 4,
        nThreadsBatch: 4,
        useHfParams: true,
        retryConfig: {},
        debug: false,
        cacheDir: '.cache/templates',
      },
    });
    expect({ cache, debug }).toMatchObject({ cache: { dir: '.cache/templates' }, debug: false });
    expect(model).toMatchObject({
      batchSize: 512,
      nSeqMax: 4,
      nThreads: 4,
      nThreadsBatch: 4,
      useHfParams: true,
      retryConfig: { maxRetries: 3, initialDelayMs: 1000, backoffMultiplier: 2, maxDelayMs: 30_000 },
    });
  });
});

describe('a model source as a URL', () => {
  const path = join(tmpdir(), 'mit Ümlaut 100%', 'model.gguf');
  const url = pathToFileURL(path);

  it.each([
    ['a text', url.href],
    ['a text with a host', url.href.replace('file:///', 'file://localhost/')],
    ['a text with one slash', url.href.replace('file:///', 'file:/')],
    ['an object', url],
    ['a path', { type: 'local', path: url.href }],
  ])('is a local path if it is a file: URL, written as %s', (_, source) => {
    expect(parseModelSource(source)).toEqual({ type: 'local', path });
  });

  it('has the type "url" if it is an http(s) URL', () => {
    const address = 'https://example.org/model.gguf';
    expect(parseModelSource(new URL(address))).toEqual({ type: 'url', url: address });
  });

  it.each([
    'file:model.gguf',
    'file:./model.gguf',
    'file://elsewhere/%2Fmodel.gguf',
    'file:///a%2Fb.gguf',
    's3://bucket/model.gguf',
    'ftp://example.org/model.gguf',
    new URL('oci://example.org/model:tag'),
    { type: 'local', path: 'https://example.org/model.gguf' },
  ])('is refused if it is neither a valid file: URL nor an http(s) URL: %s', (source) => {
    expect(() => parseModelSource(source)).toThrow(invalid(/Expected `source` to be a path, a file: URL, an http/));
  });
});

describe('`retryConfig`', () => {
  it.each([
    [{ max_retries: 3 }, '`max_retries` in `retryConfig`: did you mean `maxRetries`'],
    [{ maxRetries: -1 }, '`maxRetries`'],
    [{ backoffMultiplier: 0.5 }, '`backoffMultiplier`.*from 1 to 100'],
  ])('is refused with the name of its invalid option: %j', (config, message) => {
    expect(() => resolveRetryConfig(config as object)).toThrow(invalid(message));
  });
});
