import { join } from 'node:path';
import { Model } from 'llama-headstart/native';

/** An error that a random callback or getter throws. The call must fail with this error, unchanged. */
export class CallerError extends Error {}

const WRONG_NUMBERS = [
  ...[Number.NaN, Infinity, -Infinity, -1, -0, 0.5, 1e9],
  ...[2 ** 31, -(2 ** 31), 2 ** 53, 1e308, 5n, '3'],
];

const TEXTS = ['Hello', ' world', '\n', '<|im_end|>', '🦙', '\u0000', '\ud800', 'é', ' 12345', '"', 'a'.repeat(200)];

const SCHEMAS = [
  { type: 'object', properties: { a: { type: 'integer' } }, required: ['a'] },
  { type: 'array', items: { enum: ['x', 1, null] }, minItems: 1, maxItems: 3 },
  { anyOf: [{ type: 'string', maxLength: 5 }, { const: 7 }] },
  { $ref: '#/nowhere' },
  { $ref: '#' },
  { type: 'no such type' },
  { type: 'string', pattern: '^[' },
];

/** Makes random arguments. Most of them are right. */
export class Arguments {
  #fileCount = 0;

  constructor(options, chance, objects) {
    this.options = options;
    this.chance = chance;
    this.objects = objects;
  }

  /** Returns mostly the right value, and sometimes any value. */
  mostly(right) {
    return this.chance.happens(0.93) ? right() : this.anything();
  }

  anything() {
    const values = [
      ...[undefined, null, true, '', 'text', '\0', '\ud800', Symbol('s'), {}, [], [1], () => {}, new Date(0)],
      ...[new Proxy({}, {}), Object.create(null), new Map(), Promise.resolve(1), Model, Model.prototype],
      ...[new Int32Array(3), new Int32Array(0), new Float32Array(3), new Uint8Array(3), new BigInt64Array(3)],
      ...[new ArrayBuffer(8), new DataView(new ArrayBuffer(8)), new Int32Array(new SharedArrayBuffer(12))],
      ...[new Proxy(new Int32Array(3), {}), new AbortController().signal, detachedArray(), arrayOutOfBounds()],
      ...this.objects.all(),
    ];
    return this.chance.pick(this.chance.happens(0.3) ? WRONG_NUMBERS : values);
  }

  /** Returns mostly an object of this kind, and sometimes any value. */
  object(kind) {
    return this.mostly(() => this.objects.pick(kind) ?? this.anything());
  }

  /** Returns some of these options, mostly right ones. Rarely, an option is a getter that throws or closes an object. */
  some(options, probability = 0.3) {
    const chosen = {};
    for (const [name, right] of Object.entries(options)) {
      if (this.chance.happens(probability)) chosen[name] = this.mostly(right);
    }
    if (this.chance.happens(0.02)) {
      const closes = this.chance.happens(0.7);
      const victim = this.objects.pick(this.chance.pick(['contexts', 'states', 'samplers']));
      Object.defineProperty(chosen, this.chance.pick(Object.keys(options)), {
        enumerable: true,
        get() {
          if (!closes) throw new CallerError('a getter');
          void victim?.close();
          return undefined;
        },
      });
    }
    return chosen;
  }

  signal() {
    const controller = new AbortController();
    if (this.chance.happens(0.3)) controller.abort();
    else if (this.chance.happens(0.5)) setImmediate(() => controller.abort(new CallerError('a reason')));
    return controller.signal;
  }

  /** Returns an array with the last argument of a call that takes a signal. The array may be empty. */
  withSignal(probability = 0.2) {
    if (!this.chance.happens(probability)) return [];
    return [this.mostly(() => ({ signal: this.mostly(() => this.signal()) }))];
  }

  text() {
    return Array.from({ length: this.chance.below(8) }, () => this.chance.pick(TEXTS)).join('');
  }

  sequence() {
    return this.chance.below(this.chance.happens(0.95) ? 3 : 300);
  }

  tokens(length) {
    const token = () => (this.chance.happens(0.999) ? this.chance.below(250) : this.chance.below(2 ** 32) - 2 ** 31);
    return Int32Array.from({ length }, token);
  }

  anyPath() {
    const { models, directory, garbage, halfModel } = this.options;
    const wrong = ['', '/', directory, '/dev/null', '/nowhere/at/all', 'a\0b', 'x'.repeat(5000), 'relative.kv'];
    const file = this.objects.pick('files');
    return this.chance.pick([
      ...wrong,
      garbage,
      halfModel,
      ...models,
      ...(file === undefined ? [] : [file, file, file]),
    ]);
  }

  newFile() {
    const { directory, thread } = this.options;
    return join(directory, `${thread}-${this.#fileCount++}.kv`);
  }

  metadata() {
    return this.chance.pick([{}, { a: [1, { b: '\ud800' }] }, { text: this.text() }]);
  }

  schema() {
    return this.chance.pick(SCHEMAS);
  }
}

function detachedArray() {
  const array = Int32Array.of(1, 2, 3);
  structuredClone(array, { transfer: [array.buffer] });
  return array;
}

function arrayOutOfBounds() {
  const buffer = new ArrayBuffer(12, { maxByteLength: 16 });
  const array = new Int32Array(buffer, 4, 2);
  buffer.resize(4);
  return array;
}
