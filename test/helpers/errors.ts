import type { ErrorCode } from 'llama-headstart';
import { expect } from 'vitest';

/** Matches a `HeadstartError` with this code, and with a message that contains the text or matches the pattern. */
export const failsWith = (code: ErrorCode, message: RegExp | string = '') =>
  expect.objectContaining({ name: 'HeadstartError', code, message: expect.stringMatching(message) });
