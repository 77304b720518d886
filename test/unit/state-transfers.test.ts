// A transfer counts the bytes of a state that is copied. The states in these tests have only a size.
import { describe, expect, it } from 'vitest';
import { isClosed, openStore, stateOf, stored } from '../helpers/stored-states.js';

describe('a transfer', () => {
  const TEMPLATE = { kind: 'template' } as const;

  it('reserves its bytes in the budget, displaces what its kind may displace, and becomes a stored state', () => {
    const { store } = openStore();
    const idle = stored('template', 70);
    store.put(idle);
    expect(store.transfers.begin({ kind: 'request' }, 50)?.bytes).toBe(50); // exceeds the budget
    expect(store.has(idle)).toBe(true);
    const transfer = store.transfers.begin(TEMPLATE, 50);
    expect(store.has(idle)).toBe(false);
    const added = stored('template', 60);
    expect(transfer?.accept(added.state)).toBe(true);
    expect(store.put(added, transfer)).toBe(true);
    transfer?.end();
    expect(isClosed(added)).toBe(false);
    expect(store.status()).toMatchObject({ bytes: 60, count: 1, transferBytes: 50 });
  });

  it('may exceed the budget if no other transfer does, and closes its state at its end', () => {
    const { store } = openStore();
    const kept = stored('template', 100);
    store.put(kept);
    store.hold(kept);
    const transfer = store.transfers.begin(TEMPLATE, undefined);
    const large = stored('template', 300);
    expect(transfer?.accept(large.state)).toBe(true);
    expect(store.put(large, transfer)).toBe(false);
    expect(store.status()).toMatchObject({ bytes: 100, transferBytes: 300 });
    expect(store.transfers.begin(TEMPLATE, 1)).toBeUndefined();
    expect(store.transfers.begin(TEMPLATE, undefined)).toBeUndefined();
    transfer?.end();
    transfer?.end();
    expect(isClosed(large)).toBe(true);
    expect(store.status().transferBytes).toBe(0);
    expect(store.transfers.begin(TEMPLATE, 1)).toBeDefined();
  });

  it('of an unknown size no longer exceeds the budget once its state is known to fit', () => {
    const { store } = openStore();
    const first = store.transfers.begin(TEMPLATE, undefined);
    expect(store.transfers.begin(TEMPLATE, undefined)).toBeUndefined();
    expect(first?.accept(stateOf(50))).toBe(true);
    expect(store.transfers.begin(TEMPLATE, undefined)).toBeDefined();
  });

  it('ends if its state is larger than expected and does not fit', () => {
    const { store } = openStore();
    const exceeding = store.transfers.begin(TEMPLATE, 200);
    const transfer = store.transfers.begin(TEMPLATE, 50);
    const state = stateOf(101);
    expect(transfer?.accept(state)).toBe(false);
    expect(state.closed).toBe(true);
    expect(store.status().transferBytes).toBe(200);
    exceeding?.end();
    expect(store.status().transferBytes).toBe(0);
  });

  it('waits until another transfer ends or bytes are free, and an abort or a close ends the wait', async () => {
    const { store } = openStore();
    const exceeding = store.transfers.begin(TEMPLATE, 200);
    const kept = stored('template', 100);
    store.put(kept);
    store.hold(kept);
    const abort = new AbortController();
    const waits = [300, 40, 400, 500].map((bytes, index) =>
      store.transfers.wait(TEMPLATE, bytes, index === 0 ? abort.signal : undefined),
    );
    abort.abort();
    await expect(waits[0]).rejects.toMatchObject({ code: 'ABORTED' });
    store.drop(kept); // still held
    expect(store.status().transferBytes).toBe(300);
    exceeding?.end();
    const second = await waits[1]; // exceeds the budget, because the held state fills it
    expect(store.status().transferBytes).toBe(140);
    second?.end();
    expect((await waits[2])?.bytes).toBe(400);
    store.close();
    await expect(waits[3]).rejects.toMatchObject({ code: 'CLOSED' });
    await expect(store.transfers.wait(TEMPLATE, 1)).rejects.toMatchObject({ code: 'CLOSED' });
  });

  it('for a caller with KV cells goes first, and never waits for a transfer that waits for cells', async () => {
    const { store } = openStore();
    const { transfers } = store;
    const restoring = transfers.begin(TEMPLATE, 200);
    const reading = transfers.wait(TEMPLATE, 300);
    const capturing = transfers.waitWithCells(TEMPLATE, 400);
    restoring?.end();
    const first = await capturing;
    expect(first?.bytes).toBe(400);
    first?.end();
    const second = await reading;
    const blocked = transfers.waitWithCells(TEMPLATE, 400);
    second.setWaitsForCells(true);
    expect(await blocked).toBeUndefined();
    expect(await transfers.waitWithCells(TEMPLATE, 400)).toBeUndefined();
    expect(await transfers.waitWithCells(TEMPLATE, 40)).toBeDefined(); // fits into the budget
  });

  it('that waits does not displace a state before the caller that stored it can hold it', async () => {
    const { store } = openStore(100);
    const { transfers } = store;
    const captured = stored('template', 100);
    const first = transfers.begin(TEMPLATE, 100);
    first?.accept(captured.state);
    const exceeding = transfers.begin(TEMPLATE, 100);
    const waiting = transfers.wait(TEMPLATE, 100);
    expect(store.put(captured, first)).toBe(true);
    const release = store.hold(captured);
    exceeding?.end();
    (await waiting).end();
    release();
    expect(store.has(captured)).toBe(true);
  });
});
