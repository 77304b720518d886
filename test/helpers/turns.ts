// Functions for tests in which turns end early.
import type { HeadstartError, Session, StreamPart } from 'llama-headstart';
import { expect } from 'vitest';
import { replies, uncachedReplies } from './agents.js';

/** Matches a HeadstartError with this code. */
export const withCode = (code: HeadstartError['code']) => expect.objectContaining({ name: 'HeadstartError', code });

/** Sends "Hello", reads all parts of the stream, and calls `action` after the first part. */
export async function readTurn(session: Session, action: () => unknown, signal?: AbortSignal): Promise<StreamPart[]> {
  const parts: StreamPart[] = [];
  for await (const part of session.stream('Hello', { maxTokens: 200, ...(signal && { signal }) })) {
    parts.push(part);
    if (parts.length === 1) {
      await action();
    }
  }
  return parts;
}

/** Expects that a session has no messages and replies as a new session does. */
export async function expectLikeNew(session: Session): Promise<void> {
  expect(session.messages).toEqual([]);
  expect(await replies(session, ['Hello', 'And now?'], 8)).toEqual(await uncachedReplies({}, ['Hello', 'And now?'], 8));
}

/** Resolves with `done`, or with the code of the error. */
export const outcomeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'done',
    (error: { code?: string }) => error.code ?? String(error),
  );

/** Returns the iterator of a stream, for tests that read single parts. */
export const iterate = <Part>(stream: AsyncIterable<Part>): AsyncIterator<Part> => stream[Symbol.asyncIterator]();
