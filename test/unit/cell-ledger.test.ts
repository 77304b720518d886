import fc from 'fast-check';
import { CellLedger } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

describe('CellLedger', () => {
  it('counts a cell only once if forked sequences share it', () => {
    const cells = new CellLedger(3);
    cells.grow(0, 100);
    cells.copy(0, 1);
    cells.copy(0, 2);
    cells.grow(1, 10);
    cells.grow(2, 5);
    expect([cells.used, cells.length(0), cells.length(1), cells.length(2)]).toEqual([115, 100, 110, 105]);
    cells.cut(0, 0);
    expect(cells.used).toBe(115);
    cells.cut(1, 40);
    expect(cells.used).toBe(105);
    cells.cut(2, 0);
    expect([cells.used, cells.length(1)]).toEqual([40, 40]);
    cells.cut(1, 0);
    expect(cells.used).toBe(0);
  });

  it('counts the unshared cells in a sliding window, and lists the sequences that share the others', () => {
    const cells = new CellLedger(3);
    cells.restore(0, 100, 64);
    cells.copy(0, 1);
    cells.copy(0, 2);
    cells.grow(1, 10);
    expect([cells.unsharedInWindow(0), cells.unsharedInWindow(1)]).toEqual([0, 10]);
    expect([cells.hasUnshared(0), cells.hasUnshared(1)]).toEqual([false, true]);
    expect([...cells.sharedInWindow()]).toEqual([{ inWindow: 64, holders: [0, 1, 2] }]);
    cells.cut(0, 0);
    cells.cut(2, 0);
    expect([...cells.sharedInWindow()]).toEqual([]);
    expect(cells.unsharedInWindow(1)).toBe(74);
  });

  it('gives the same counts as a naive implementation after every operation', () => {
    const sequence = fc.nat(3);
    const command = fc.oneof(
      fc.record({ name: fc.constant('grow' as const), sequence, value: fc.integer({ min: 1, max: 9 }) }),
      fc.record({ name: fc.constant('cut' as const), sequence, value: fc.nat(12) }),
      fc.record({ name: fc.constant('copy' as const), sequence, value: sequence }),
    );
    fc.assert(
      fc.property(fc.array(command, { maxLength: 40 }), (commands) => {
        const ledger = new CellLedger(4);
        const model: number[][] = [[], [], [], []]; // for each sequence, the cell numbers of its tokens
        let next = 0;
        for (const { name, sequence: id, value } of commands) {
          const cells = model[id] as number[];
          if (name === 'grow') {
            ledger.grow(id, value);
            cells.push(...Array.from({ length: value }, () => next++));
          } else if (name === 'cut') {
            ledger.cut(id, value);
            cells.length = Math.min(cells.length, value);
          } else if (model[value]?.length === 0 && value !== id) {
            ledger.copy(id, value);
            model[value] = [...cells];
          }
          expect(ledger.used).toBe(new Set(model.flat()).size);
          expect(model.map((_, sequenceId) => ledger.length(sequenceId))).toEqual(model.map(({ length }) => length));
        }
      }),
    );
  });
});
