import { HeadstartError } from 'llama-headstart';
import { describe, expect, it } from 'vitest';

describe('a HeadstartError', () => {
  const cause = new Error('no such file');
  const error = new HeadstartError('MODEL_NOT_FOUND', 'Expected a file', { cause });

  it('is an Error with a code, a name, a message and a cause', () => {
    expect(error).toBeInstanceOf(Error);
    expect(error).toMatchObject({ code: 'MODEL_NOT_FOUND', name: 'HeadstartError', message: 'Expected a file', cause });
  });

  it('is recognized by `HeadstartError.isInstance`, with or without its code', () => {
    expect(HeadstartError.isInstance(error)).toBe(true);
    expect(HeadstartError.isInstance(error, 'MODEL_NOT_FOUND')).toBe(true);
    expect(HeadstartError.isInstance(error, 'CLOSED')).toBe(false);
  });

  it('is recognized if another copy of the package created it', () => {
    const foreign = Object.assign(new Error('Expected a file'), { name: 'HeadstartError', code: 'CLOSED' });
    expect(HeadstartError.isInstance(foreign, 'CLOSED')).toBe(true);
  });

  it.each([
    undefined,
    null,
    'HeadstartError',
    { name: 'HeadstartError', code: 'CLOSED' },
    new Error('x'),
    Object.assign(new Error('x'), { code: 'ENOENT' }),
    Object.assign(new Error('x'), { name: 'HeadstartError' }),
  ])('is not confused with %o', (value) => {
    expect(HeadstartError.isInstance(value)).toBe(false);
  });
});
