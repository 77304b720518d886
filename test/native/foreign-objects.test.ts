// Objects that only look like those of this package are refused, and never reach native code.
import { Context, FileLock, Model, SequenceState } from 'llama-headstart/native';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { microModel } from '../helpers/models.js';
import { captureOf, codeOf, someTokens } from '../helpers/native.js';

// biome-ignore lint/suspicious/noExplicitAny: the tests pass objects of wrong classes
type Anything = any;

let model: Model;
let context: Context;
let state: SequenceState;

beforeAll(async () => {
  model = await Model.load({ path: microModel('dense') });
  context = await model.createContext({ kvCells: 256 });
  state = await captureOf(context, someTokens(10, 200));
});
afterAll(() => model?.close());

it('every method of an object that was not created by the addon throws', async () => {
  for (const type of [Model, Context, SequenceState, FileLock] as Anything[]) {
    const fake = Object.create(type.prototype);
    for (const name of Object.getOwnPropertyNames(type.prototype)) {
      if (name === 'constructor') continue;
      await expect(async () => {
        const member = fake[name];
        await member.call(fake, 0, new Int32Array(1));
      }, `${type.name}.${name}`).rejects.toThrow();
    }
  }
});

it('a state without a native state is refused', async () => {
  const raw = state.raw as Anything;
  const RawState = raw.constructor;
  const asState = (fake: Anything) => Object.assign(Object.create(SequenceState.prototype), { raw: fake });
  const empty = Object.create(RawState.prototype);
  const disguised = Object.setPrototypeOf(new (class {})(), RawState.prototype);
  for (const fake of [undefined, null, {}, empty, disguised, new Proxy(raw, {}), RawState, RawState.prototype]) {
    expect(await codeOf(() => context.restoreSequence(0, asState(fake)))).toBe('INVALID_ARGUMENT');
  }
  expect((await context.positionRange(0)).last).toBe(-1);
});

it('a changed Symbol.hasInstance does not make other objects valid', async () => {
  const RawState = (state.raw as Anything).constructor;
  Object.defineProperty(RawState, Symbol.hasInstance, { value: () => true, configurable: true });
  for (const fake of [{}, model, context]) {
    expect(await codeOf(() => context.restoreSequence(0, { raw: fake } as Anything))).toBe('INVALID_ARGUMENT');
  }
  delete RawState[Symbol.hasInstance];
});

it('native methods refuse a `this` of another class', () => {
  const raw = state.raw as Anything;
  for (const receiver of [{}, Object.create(raw), null, 5, Object.create(Object.getPrototypeOf(raw))]) {
    for (const name of ['tokens', 'byteLength', 'metadata', 'close', 'share']) {
      expect(() => raw[name].call(receiver), `${name} of ${typeof receiver}`).toThrow();
    }
  }
  expect(state.byteLength).toBeGreaterThan(0);
});

it('native classes cannot be created with new', () => {
  const RawState = (state.raw as Anything).constructor;
  for (const argument of [undefined, null, {}, state.raw]) {
    expect(() => new RawState(argument)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  }
  expect(() => RawState()).toThrow();
});

it('a state is usable after its context and model were closed', async () => {
  const other = await Model.load({ path: microModel('dense') });
  const short = await other.createContext({ kvCells: 256 });
  const kept = await captureOf(short, someTokens(10, 200));
  await other.close();
  await context.restoreSequence(0, kept);
  expect((await context.positionRange(0)).last).toBe(9);
  kept.close();
});
