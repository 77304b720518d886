import { RwLock } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

describe('RwLock', () => {
  it('admits several readers together, then the waiting writer alone, then later readers', async () => {
    const lock = new RwLock();
    const events: string[] = [];
    const [one, two] = [await lock.read(), await lock.read()];
    const writing = lock.write(async () => {
      events.push('writer');
    });
    const lateReader = lock.read().then((unlock) => {
      events.push('late reader');
      return unlock;
    });
    one();
    one(); // a second call does nothing
    await new Promise(setImmediate);
    expect(events).toEqual([]);
    two();
    await writing;
    (await lateReader)();
    expect(events).toEqual(['writer', 'late reader']);
  });

  it('admits writers one after the other, in the order of their calls', async () => {
    const lock = new RwLock();
    const events: number[] = [];
    await Promise.all(
      [1, 2, 3].map((writer) =>
        lock.write(async () => {
          events.push(writer);
          await new Promise(setImmediate);
          events.push(writer);
        }),
      ),
    );
    expect(events).toEqual([1, 1, 2, 2, 3, 3]);
  });

  it('admits the next reader or writer after a waiting writer was aborted or a writer failed', async () => {
    const lock = new RwLock();
    const unlock = await lock.read();
    const controller = new AbortController();
    const aborted = lock.write(() => Promise.resolve(), controller.signal);
    const waiting = lock.read(controller.signal);
    const failing = lock.write(() => Promise.reject(new Error('no')));
    controller.abort();
    await expect(aborted).rejects.toMatchObject({ code: 'ABORTED' });
    await expect(waiting).rejects.toMatchObject({ code: 'ABORTED' });
    unlock();
    await expect(failing).rejects.toThrow('no');
    (await lock.read())();
  });
});
