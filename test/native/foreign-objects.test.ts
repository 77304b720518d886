// Objects that only look like ours are refused; none reaches native code as what it is not.
import { Context, FileLock, Model, SequenceState } from 'llama-headstart/native';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { microModel } from '../helpers/models.js';
import { captureOf, codeOf, someTokens } from '../helpers/native.js';

// biome-ignore lint/suspicious/noExplicitAny: objects of wrong classes are what is tested
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

it('a made-up model, context, state or lock throws from every method', async () => {
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

it('a state with something else inside is refused', async () => {
  const raw = state.raw as Anything;
  const RawState = raw.constructor;
  const asState = (inside: Anything) => Object.assign(Object.create(SequenceState.prototype), { raw: inside });
  const empty = Object.create(RawState.prototype);
  const disguised = Object.setPrototypeOf(new (class {})(), RawState.prototype);
  for (const inside of [undefined, null, {}, empty, disguised, new Proxy(raw, {}), RawState, RawState.prototype]) {
    expect(await codeOf(() => context.restoreSequence(0, asState(inside)))).toBe('INVALID_ARGUMENT');
  }
  expect((await context.positionRange(0)).last).toBe(-1);
});

it('a class that claims every object as its instance changes nothing', async () => {
  const RawState = (state.raw as Anything).constructor;
  Object.defineProperty(RawState, Symbol.hasInstance, { value: () => true, configurable: true });
  for (const inside of [{}, model, context]) {
    expect(await codeOf(() => context.restoreSequence(0, { raw: inside } as Anything))).toBe('INVALID_ARGUMENT');
  }
  delete RawState[Symbol.hasInstance];
});

it('native methods refuse a receiver of another class', () => {
  const raw = state.raw as Anything;
  for (const receiver of [{}, Object.create(raw), null, 5, Object.create(Object.getPrototypeOf(raw))]) {
    for (const name of ['tokens', 'byteLength', 'metadata', 'close', 'share']) {
      expect(() => raw[name].call(receiver), `${name} of ${typeof receiver}`).toThrow();
    }
  }
  expect(state.byteLength).toBeGreaterThan(0);
});

it('native classes are not for new', () => {
  const RawState = (state.raw as Anything).constructor;
  for (const argument of [undefined, null, {}, state.raw]) {
    expect(() => new RawState(argument)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  }
  expect(() => RawState()).toThrow();
});

it('a state outlives the context and model that made it', async () => {
  const other = await Model.load({ path: microModel('dense') });
  const short = await other.createContext({ kvCells: 256 });
  const kept = await captureOf(short, someTokens(10, 200));
  await other.close();
  await context.restoreSequence(0, kept);
  expect((await context.positionRange(0)).last).toBe(9);
  kept.close();
});
