// Tests waits that an abort ends, and abort signals that combine other signals.
import { getEventListeners } from 'node:events';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { combinedSignal, onAbort, orAborted, waitInQueue } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

const never = new Promise<never>(() => undefined);
const listeners = (signal: AbortSignal) => getEventListeners(signal, 'abort').length;

describe('a combined signal', () => {
  it('fires after a time limit even if nothing else references the signal of the time limit', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const make = () => combinedSignal(new AbortController().signal, AbortSignal.timeout(100));
    const fired = new Promise((resolve) => make().addEventListener('abort', resolve, { once: true }));
    for (let turn = 0; turn < 5; turn++) {
      await new Promise(setImmediate);
      collect();
    }
    await fired;
  });

  it('is a new signal even if it combines only one signal or none', () => {
    const { signal } = new AbortController();
    expect(combinedSignal(signal)).not.toBe(signal);
    expect(combinedSignal().aborted).toBe(false);
    expect(combinedSignal(undefined, AbortSignal.abort('why'))).toMatchObject({ aborted: true, reason: 'why' });
  });
});

describe('a listener', () => {
  it('is called one time, immediately if the signal has already fired, and never after its removal', () => {
    const [fires, removed] = [new AbortController(), new AbortController()];
    const calls: string[] = [];
    onAbort(fires.signal, () => calls.push('later'));
    onAbort(AbortSignal.abort(), () => calls.push('at once'));
    onAbort(removed.signal, () => calls.push('removed'))();
    onAbort(undefined, () => calls.push('no signal'))();
    fires.abort();
    removed.abort();
    expect(calls).toEqual(['at once', 'later']);
  });
});

describe('a wait for work', () => {
  it('ends with the result or error of the work, and leaves no listener', async () => {
    const { signal } = new AbortController();
    expect(await orAborted(Promise.resolve(1), signal)).toBe(1);
    await expect(orAborted(Promise.reject(new Error('failed')), signal)).rejects.toThrow('failed');
    expect(await orAborted(Promise.resolve(2), undefined)).toBe(2);
    expect(listeners(signal)).toBe(0);
  });

  it('ends with ABORTED and the reason as cause', async () => {
    const controller = new AbortController();
    const waiting = orAborted(never, controller.signal);
    controller.abort('why');
    await expect(waiting).rejects.toMatchObject({ code: 'ABORTED', cause: 'why' });
    await expect(orAborted(never, AbortSignal.abort('before'))).rejects.toMatchObject({ cause: 'before' });
    expect(listeners(controller.signal)).toBe(0);
  });
});

describe('a wait in a queue', () => {
  /** Begins a wait in a new queue. `entry` is its queue entry, and `left` counts how often the wait left the queue. */
  function wait(signal?: AbortSignal) {
    const queue: { resolve: (value: number) => void; reject: (error: unknown) => void }[] = [];
    let left = 0;
    const waiting = waitInQueue<number>(signal, (resolve, reject) => {
      queue.push({ resolve, reject });
      return () => left++;
    });
    return { waiting, entry: queue[0], left: () => left };
  }

  it('ends when the queue resolves or rejects it', async () => {
    const { signal } = new AbortController();
    const [served, failed] = [wait(signal), wait(signal)];
    served.entry?.resolve(7);
    failed.entry?.reject(new Error('failed'));
    expect(await served.waiting).toBe(7);
    await expect(failed.waiting).rejects.toThrow('failed');
    expect([served.left(), failed.left(), listeners(signal)]).toEqual([0, 0, 0]);
  });

  it('leaves the queue when the signal fires', async () => {
    const controller = new AbortController();
    const { waiting, left } = wait(controller.signal);
    controller.abort('why');
    await expect(waiting).rejects.toMatchObject({ code: 'ABORTED', cause: 'why' });
    expect(left()).toBe(1);
  });

  it('keeps a result that came in the same tick as the abort, and does not leave the queue again', async () => {
    const controller = new AbortController();
    const { waiting, entry, left } = wait(controller.signal);
    entry?.resolve(7);
    controller.abort();
    expect([await waiting, left()]).toEqual([7, 0]);
  });

  it('adds no listener if the queue serves it at once', async () => {
    const controller = new AbortController();
    let left = 0;
    const waiting = waitInQueue<number>(controller.signal, (resolve) => {
      resolve(7);
      return () => left++;
    });
    expect(listeners(controller.signal)).toBe(0);
    controller.abort();
    expect([await waiting, left]).toEqual([7, 0]);
  });

  it('does not enter the queue if the signal has fired', async () => {
    const { waiting, entry } = wait(AbortSignal.abort());
    await expect(waiting).rejects.toMatchObject({ code: 'ABORTED' });
    expect(entry).toBeUndefined();
  });
});
