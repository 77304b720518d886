import { RwLock } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

describe('a gate', () => {
  it('lets any number in at once, and one alone when they have left; those behind wait', async () => {
    const gate = new RwLock();
    const events: string[] = [];
    const [one, two] = [await gate.read(), await gate.read()];
    const alone = gate.write(async () => {
      events.push('alone');
    });
    const late = gate.read().then((leave) => {
      events.push('late');
      return leave;
    });
    one();
    one(); // twice is once
    await new Promise(setImmediate);
    expect(events).toEqual([]);
    two();
    await alone;
    (await late)();
    expect(events).toEqual(['alone', 'late']);
  });

  it('lets those who want to be alone in one after the other, in order', async () => {
    const gate = new RwLock();
    const events: number[] = [];
    await Promise.all(
      [1, 2, 3].map((each) =>
        gate.write(async () => {
          events.push(each);
          await new Promise(setImmediate);
          events.push(each);
        }),
      ),
    );
    expect(events).toEqual([1, 1, 2, 2, 3, 3]);
  });

  it('goes on behind one that was aborted while waiting, or whose work failed', async () => {
    const gate = new RwLock();
    const leave = await gate.read();
    const controller = new AbortController();
    const aborted = gate.write(() => Promise.resolve(), controller.signal);
    const waiting = gate.read(controller.signal);
    const failing = gate.write(() => Promise.reject(new Error('no')));
    controller.abort();
    await expect(aborted).rejects.toMatchObject({ code: 'ABORTED' });
    await expect(waiting).rejects.toMatchObject({ code: 'ABORTED' });
    leave();
    await expect(failing).rejects.toThrow('no');
    (await gate.read())();
  });
});
