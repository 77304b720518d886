// random-calls.mjs SEED CALLS MODELS DIRECTORY: random calls with random arguments, right and wrong, from four threads, each
// with objects of its own and many calls in flight. Every call must end in a value or in a coded error. Prints what came of
// each kind of call as JSON, and what broke the promise to stderr, with the seed and the call.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import {
  FileLock,
  HeadstartError,
  jsonSchemaToGrammar,
  Model,
  SequenceState,
  setNativeLogger,
} from 'llama-headstart/native';

const WORKERS = 3;
const IN_FLIGHT = 24;
/** Objects of a kind that a thread keeps, open or closed; the oldest goes for the next. */
const KEPT = { models: 3, contexts: 4, states: 12, samplers: 8, loras: 2, replies: 4, files: 6, locks: 3 };

/** The codes that errors.ts declares, but for the one that admits a defect. */
const declarations = readFileSync(new URL('../../../dist/errors.d.ts', import.meta.url), 'utf8');
const CODES = new Set([...declarations.matchAll(/'([A-Z_]+)'/g)].map(([, code]) => code));
assert(CODES.delete('INTERNAL') && CODES.has('CLOSED'));

/** What callbacks and getters of the caller throw: it comes back as it is. */
class OnPurpose extends Error {}

/** Mulberry32: the same numbers from 0 to 1 for the same seed, everywhere. */
function seededRandom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** One thread's calls. */
class Player {
  failures = [];
  /** By kind of call: how many gave a value, and how many a coded error. */
  outcomes = {};
  #random;
  #options;
  #kept = { models: [], contexts: [], states: [], samplers: [], loras: [], replies: [], files: [], locks: [] };
  #fileCount = 0;

  constructor(options) {
    this.#options = options;
    this.#random = seededRandom(options.seed * 16 + options.thread);
  }

  async play() {
    const inFlight = new Set();
    this.#keep('models', await Model.load({ path: this.#options.models[this.#options.thread] }));
    for (let call = 0; call < this.#options.calls; call++) {
      const settled = this.#call(call).finally(() => inFlight.delete(settled));
      inFlight.add(settled);
      if (inFlight.size >= IN_FLIGHT) await Promise.race(inFlight);
      else if (this.#chance(0.2)) await new Promise(setImmediate);
      if (this.failures.length >= 3) break;
    }
    await Promise.all(inFlight);
    await Promise.all(this.#kept.models.map((model) => model.close()));
    for (const each of [...this.#kept.states, ...this.#kept.samplers, ...this.#kept.loras]) each.close();
    for (const lock of this.#kept.locks) lock.release();
  }

  async #call(number) {
    const [kind, make] = this.#pick(this.#calls);
    this.outcomes[kind] ??= [0, 0];
    const count = this.outcomes[kind];
    let call;
    try {
      call = make();
      const result = await call.run();
      call.keep?.(result);
      count[0]++;
    } catch (error) {
      count[1]++;
      if ((HeadstartError.isInstance(error) && CODES.has(error.code)) || error instanceof OnPurpose) return;
      const { seed, thread } = this.#options;
      const shown = inspect(call?.shown, { depth: 3, breakLength: 120, maxArrayLength: 8, maxStringLength: 200 });
      this.failures.push(`seed ${seed}, thread ${thread}, call ${number}: ${kind} ${shown}\n${inspect(error)}`);
    }
  }

  // --- Chance ---------------------------------------------------------------------------------------------------------

  #chance(probability) {
    return this.#random() < probability;
  }

  #below(limit) {
    return Math.floor(this.#random() * limit);
  }

  #pick(list) {
    return list[this.#below(list.length)];
  }

  #keep(kind, value) {
    const list = this.#kept[kind];
    list.push(value);
    if (list.length > KEPT[kind]) this.#drop(kind, list.shift());
  }

  /** Most are closed, some are left to the collector. */
  #drop(kind, value) {
    if (kind === 'files') void rm(value, { force: true });
    else if (kind === 'locks') value.release();
    // A model is big: none is left behind.
    else if (kind !== 'replies' && (kind === 'models' || this.#chance(0.8))) void value.close();
  }

  /** The right value mostly, or anything. */
  #mostly(right) {
    return this.#chance(0.93) ? right() : this.#anything();
  }

  #wrongNumber() {
    return this.#pick([
      Number.NaN,
      Infinity,
      -Infinity,
      -1,
      -0,
      0.5,
      1e9,
      2 ** 31,
      -(2 ** 31),
      2 ** 53,
      1e308,
      5n,
      '3',
    ]);
  }

  #anything() {
    const any = [
      ...[undefined, null, true, '', 'text', '\0', '\ud800', Symbol('s'), {}, [], [1], () => {}, new Date(0)],
      ...[new Proxy({}, {}), Object.create(null), new Map(), Promise.resolve(1), Model, Model.prototype],
      ...[new Int32Array(3), new Int32Array(0), new Float32Array(3), new Uint8Array(3), new BigInt64Array(3)],
      ...[new ArrayBuffer(8), new DataView(new ArrayBuffer(8)), new Int32Array(new SharedArrayBuffer(12))],
      ...[new Proxy(new Int32Array(3), {}), new AbortController().signal, this.#detached(), this.#outOfBounds()],
      ...Object.values(this.#kept).flat(),
    ];
    return this.#chance(0.3) ? this.#wrongNumber() : this.#pick(any);
  }

  #detached() {
    const array = Int32Array.of(1, 2, 3);
    structuredClone(array, { transfer: [array.buffer] });
    return array;
  }

  #outOfBounds() {
    const buffer = new ArrayBuffer(12, { maxByteLength: 16 });
    const array = new Int32Array(buffer, 4, 2);
    buffer.resize(4);
    return array;
  }

  /** A kept object or, where there is none, anything. */
  #kind(kind) {
    return this.#mostly(() => (this.#kept[kind].length > 0 ? this.#pick(this.#kept[kind]) : this.#anything()));
  }

  /** An object whose methods are called: always of its class. Undefined where there is none. */
  #owner(kind) {
    return this.#pick(this.#kept[kind]);
  }

  /** Some of `options`, each right mostly. Now and then one is a getter that closes something, or throws. */
  #some(options, probability = 0.3) {
    const chosen = {};
    for (const [name, right] of Object.entries(options)) {
      if (this.#chance(probability)) chosen[name] = this.#mostly(right);
    }
    if (this.#chance(0.02)) {
      const closes = this.#chance(0.7);
      const victim = this.#owner(this.#pick(['contexts', 'states', 'samplers']));
      Object.defineProperty(chosen, this.#pick(Object.keys(options)), {
        enumerable: true,
        get() {
          if (!closes) throw new OnPurpose('a getter');
          void victim?.close();
          return undefined;
        },
      });
    }
    return chosen;
  }

  #signal() {
    const controller = new AbortController();
    if (this.#chance(0.3)) controller.abort();
    else if (this.#chance(0.5)) setImmediate(() => controller.abort(new OnPurpose('a reason')));
    return controller.signal;
  }

  /** The last argument of calls that take a signal. */
  #cancelling(probability = 0.2) {
    return this.#chance(probability) ? [this.#mostly(() => ({ signal: this.#mostly(() => this.#signal()) }))] : [];
  }

  // --- Arguments ------------------------------------------------------------------------------------------------------

  #text() {
    const pieces = [
      'Hello',
      ' world',
      '\n',
      '<|im_end|>',
      '🦙',
      '\u0000',
      '\ud800',
      'é',
      ' 12345',
      '"',
      'a'.repeat(200),
    ];
    return Array.from({ length: this.#below(8) }, () => this.#pick(pieces)).join('');
  }

  #sequence() {
    return this.#below(this.#chance(0.95) ? 3 : 300);
  }

  #tokens(length) {
    return Int32Array.from({ length }, () => (this.#chance(0.999) ? this.#below(250) : this.#below(2 ** 32) - 2 ** 31));
  }

  #anyPath() {
    const { models, directory } = this.#options;
    const paths = ['', '/', directory, '/dev/null', '/nowhere/at/all', 'a\0b', 'x'.repeat(5000), 'relative.kv'];
    return this.#pick([...paths, this.#options.garbage, this.#options.halfModel, ...models, ...this.#kept.files]);
  }

  #newFile() {
    const { directory, thread } = this.#options;
    return join(directory, `${thread}-${this.#fileCount++}.kv`);
  }

  #metadata() {
    return this.#pick([{}, { a: [1, { b: '\ud800' }] }, { text: this.#text() }]);
  }

  #schema() {
    const schemas = [
      { type: 'object', properties: { a: { type: 'integer' } }, required: ['a'] },
      { type: 'array', items: { enum: ['x', 1, null] }, minItems: 1, maxItems: 3 },
      { anyOf: [{ type: 'string', maxLength: 5 }, { const: 7 }] },
      { $ref: '#/nowhere' },
      { $ref: '#' },
      { type: 'no such type' },
      { type: 'string', pattern: '^[' },
    ];
    return this.#pick(schemas);
  }

  #contextOptions() {
    const types = ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'f7'];
    return {
      kvCells: this.#pick([64, 256, 512]),
      batchSize: this.#pick([16, 64, 64]),
      maxSequences: this.#chance(0.9) ? 3 : 1,
      ...this.#some(
        {
          microBatchSize: () => this.#pick([1, 2, 16]),
          maxOutputs: () => this.#pick([1, 2, 3]),
          nThreads: () => this.#pick([1, 2, 9]),
          nThreadsBatch: () => this.#pick([1, 2]),
          kvLayout: () => this.#pick(['unified', 'split']),
          keyType: () => this.#pick(types),
          valueType: () => this.#pick(types),
          flashAttention: () => this.#chance(0.5),
          fullSlidingWindow: () => this.#chance(0.5),
          offloadKv: () => this.#chance(0.5),
          ropeScaling: () => this.#pick(['model', 'none', 'linear', 'yarn']),
          ropeFrequencyBase: () => this.#pick([0, 10_000, 1e38]),
          ropeFrequencyScale: () => this.#pick([0, 1, 1e-30]),
          kvCells: () => this.#pick([1, 512, 1000, 2 ** 28]),
          batchSize: () => this.#pick([1, 100, 2 ** 20 + 1]),
        },
        0.05,
      ),
      ...this.#some({ signal: () => this.#signal() }, 0.2),
    };
  }

  #samplerOptions() {
    const grammars = ['root ::= "a"', 'root ::= [a-z]+', 'root ::= ("a" | "b")* "c"', 'root ::=', 'root ::= root', ''];
    return this.#some(
      {
        temperature: () => this.#pick([0, 0.7, 100]),
        dynamicTemperatureRange: () => this.#pick([0, 0.1]),
        topK: () => this.#pick([0, 1, 40]),
        topP: () => this.#random(),
        minP: () => this.#random(),
        typicalP: () => this.#random(),
        topNSigma: () => this.#random(),
        minKeep: () => this.#below(4),
        repeatPenalty: () => 1 + this.#random(),
        frequencyPenalty: () => this.#random(),
        penaltyLastTokens: () => this.#pick([0, 1, 64]),
        dry: () =>
          this.#some({ multiplier: () => 1, base: () => 2, sequenceBreakers: () => this.#pick([[], ['\n'], [1]]) }),
        xtc: () => this.#some({ probability: () => this.#random(), threshold: () => 0.1 }),
        mirostat: () => this.#some({ version: () => this.#below(3), tau: () => 5, eta: () => 0.1 }),
        logitBias: () => this.#pick([{ 5: 1 }, new Map([[7, -Infinity]]), { x: 1 }, { 1e9: 1 }]),
        ignoreEos: () => this.#chance(0.5),
        seed: () => this.#below(2 ** 32),
        grammar: () => this.#pick(grammars),
        grammarLazy: () => this.#chance(0.5),
        grammarTriggers: () => [
          this.#some({ type: () => this.#pick(['word', 'token', 'pattern']), value: () => 'a', token: () => 5 }, 0.9),
        ],
        preservedTokens: () => ['<|im_end|>'],
        generationPrompt: () => this.#pick(['', 'a', this.#text()]),
      },
      0.15,
    );
  }

  #renderRequest() {
    const messages = [{ role: 'user', content: this.#text() }];
    const tools = [{ type: 'function', function: { name: 'look', description: 'looks', parameters: this.#schema() } }];
    const wrong = [
      [],
      [{}],
      [{ role: 'nobody', content: 5 }],
      [null],
      [{ role: 'user', content: [{ type: 'image_url' }] }],
    ];
    return {
      messages: this.#mostly(() => (this.#chance(0.9) ? messages : this.#pick(wrong))),
      ...this.#some(
        {
          tools: () => tools,
          chatTemplate: () => this.#pick(['{{ messages[0].content }}', '{% for %}', '{{ raise_exception("no") }}', '']),
          addGenerationPrompt: () => this.#chance(0.5),
          reasoning: () => this.#chance(0.5),
          toolChoice: () => this.#pick(['auto', 'required', 'none']),
          parallelToolCalls: () => this.#chance(0.5),
          jsonSchema: () => this.#schema(),
          reasoningFormat: () => this.#pick(['auto', 'none']),
        },
        0.2,
      ),
    };
  }

  /** Goes on where up to three sequences end, as their positions were a moment ago; spoiled now and then. */
  async #batch(context) {
    const sequences = [...new Set([0, this.#below(3), this.#below(3)])].filter((id) => id < context.info.maxSequences);
    const rows = [];
    for (const sequence of sequences.slice(this.#below(sequences.length))) {
      const { last } = await context.positionRange(sequence);
      const length = 1 + this.#below(this.#chance(0.7) ? 3 : 30);
      for (let at = 1; at <= length; at++) rows.push({ sequence, position: last + at });
    }
    const outputs = Uint8Array.from(rows, () => (this.#chance(0.5) ? 1 : 0));
    const batch = {
      tokens: this.#tokens(rows.length),
      positions: Int32Array.from(rows, ({ position }) => position),
      sequences: Int32Array.from(rows, ({ sequence }) => sequence),
      outputs,
    };
    if (this.#chance(0.4)) {
      const chosen = Array.from({ length: outputs.reduce((sum, each) => sum + each, 0) }, () =>
        this.#chance(0.3) ? this.#kind('samplers') : null,
      );
      batch.samplers = this.#mostly(() => chosen);
    }
    if (this.#chance(0.1)) batch.signal = this.#mostly(() => this.#signal());
    if (this.#chance(0.1)) {
      const spoiled = batch[this.#pick(['tokens', 'positions', 'sequences', 'outputs'])];
      spoiled[this.#below(spoiled.length)] = this.#pick([-1, 1, 2, 200, 2 ** 31 - 1, -(2 ** 31)]);
    }
    return this.#chance(0.05)
      ? { ...batch, ...this.#some({ tokens: () => this.#tokens(4), outputs: () => new Uint8Array(4) }) }
      : batch;
  }

  // --- Calls ----------------------------------------------------------------------------------------------------------

  /** A call of a method on one of the kept objects. */
  #on(kind, name, args, keep) {
    const owner = this.#owner(kind);
    if (owner === undefined) return { shown: 'nothing to call it on', run: () => {} };
    return this.#plain(
      () => args().map((each) => this.#mostly(() => each)),
      (...given) => owner[name](...given),
      keep,
    );
  }

  #plain(args, run, keep) {
    const given = args();
    return { shown: given, run: () => run(...given), keep: keep && ((result) => this.#keep(keep, result)) };
  }

  #context(name, args, keep) {
    return () => this.#on('contexts', name, args, keep);
  }

  #model(name, args, keep) {
    return () => this.#on('models', name, args, keep);
  }

  #state(name, args, keep) {
    return () => this.#on('states', name, args, keep);
  }

  #capture = () => {
    const context = this.#owner('contexts');
    const sequence = this.#sequence();
    const run = async () => {
      const { last } = await context.positionRange(sequence);
      return context.captureSequence(
        sequence,
        this.#mostly(() => this.#tokens(last + 1)),
        ...this.#cancelling(),
      );
    };
    if (context === undefined) return { run: () => {} };
    return { shown: { sequence }, run, keep: (state) => this.#keep('states', state) };
  };

  /** Of an adapter just loaded, too: one remembers its hash. */
  #contentHash = () => {
    const model = this.#owner('models');
    const adapter = this.#owner('loras');
    const options = this.#cancelling(0.6);
    const run = async () => {
      const hashed = adapter && this.#chance(0.5) ? adapter : await model?.loadLora(this.#options.lora);
      if (hashed !== adapter) this.#keep('loras', hashed);
      return hashed?.contentHash(...options);
    };
    return { shown: options, run };
  };

  #decode = () => {
    const context = this.#owner('contexts');
    const call = { run: () => {} };
    if (context === undefined) return call;
    call.run = async () => {
      call.shown = await this.#mostly(() => this.#batch(context));
      return context.decode(call.shown);
    };
    return call;
  };

  #write = () => {
    const path = this.#newFile();
    const options = () => ({ signal: this.#signal() });
    const call = this.#on('states', 'writeFile', () => [
      path,
      this.#metadata(),
      ...(this.#chance(0.2) ? [options()] : []),
    ]);
    return { ...call, keep: () => call.shown[0] === path && this.#keep('files', path) };
  };

  #load = () => {
    const { models, thread } = this.#options;
    const options = {
      path: this.#chance(0.8) ? this.#pick([models[thread], models[thread], ...models]) : this.#anyPath(),
      ...this.#some(
        {
          nGpuLayers: () => this.#pick([-1, 0, 99]),
          useMmap: () => this.#chance(0.5),
          useMlock: () => false,
          repackWeights: () => this.#chance(0.5),
          checkTensors: () => this.#chance(0.5),
          vocabularyOnly: () => this.#chance(0.5),
          onProgress: () =>
            this.#pick([
              () => {},
              () => {
                throw new OnPurpose('progress');
              },
            ]),
          signal: () => this.#signal(),
        },
        0.1,
      ),
    };
    return this.#plain(
      () => [this.#mostly(() => options)],
      (given) => Model.load(given),
      'models',
    );
  };

  #close = () => {
    // Models seldom: all else hangs on them.
    const kind = this.#chance(0.03) ? 'models' : this.#pick(['contexts', 'states', 'states', 'samplers', 'loras']);
    const owner = this.#owner(kind);
    // Most of what is closed makes room, some is called again.
    const forget = () => {
      const closed = kind === 'models' ? ['models', 'contexts', 'samplers', 'loras'] : [kind];
      for (const each of closed)
        this.#kept[each] = this.#kept[each].filter((other) => kind !== 'models' && other !== owner);
    };
    return { shown: kind, run: () => owner?.close(), keep: () => this.#chance(0.8) && forget() };
  };

  #getters = () => {
    const [kind, name] = this.#pick([
      ['states', 'tokens'],
      ['states', 'byteLength'],
      ['states', 'metadata'],
      ['samplers', 'failure'],
      ['contexts', 'info'],
      ['models', 'info'],
    ]);
    const owner = this.#owner(kind);
    return { shown: name, run: () => owner?.[name] };
  };

  /** A method of one class on an object of another, or with nothing behind it. */
  #foreign = () => {
    const owners = [
      ...Object.values(this.#kept)
        .flat()
        .filter((each) => typeof each === 'object' && 'raw' in each),
    ];
    const raw = this.#chance(0.5) ? this.#pick(owners)?.raw : this.#anything();
    const [Class, name] = this.#pick([
      [SequenceState, 'share'],
      [SequenceState, 'close'],
      [SequenceState, 'writeFile'],
    ]);
    const state = new SequenceState(raw ?? {});
    return { shown: [Class.name, name, raw], run: () => this.#kept.contexts[0]?.restoreSequence(0, state) };
  };

  #calls = Object.entries({
    load: [1, this.#load],
    createContext: [5, this.#model('createContext', () => [this.#contextOptions()], 'contexts')],
    createSampler: [4, this.#model('createSampler', () => [this.#samplerOptions(), ...this.#cancelling()], 'samplers')],
    loadLora: [
      1,
      this.#model(
        'loadLora',
        () => [this.#chance(0.6) ? this.#options.lora : this.#anyPath(), ...this.#cancelling()],
        'loras',
      ),
    ],
    contentHash: [4, this.#contentHash],
    tokenize: [
      3,
      this.#model('tokenize', () => [
        this.#text(),
        this.#some({ addSpecial: () => true, parseSpecial: () => true, signal: () => this.#signal() }),
      ]),
    ],
    detokenize: [
      3,
      this.#model('detokenize', () => [
        this.#tokens(this.#below(9)),
        this.#some({ special: () => true, signal: () => this.#signal() }),
      ]),
    ],
    tokenToText: [1, this.#model('tokenToText', () => [this.#below(260)])],
    tokenToBytes: [2, this.#model('tokenToBytes', () => [this.#below(260), this.#some({ special: () => true })])],
    isControl: [1, this.#model('isControl', () => [this.#below(260)])],
    isEndOfGeneration: [2, this.#model('isEndOfGeneration', () => [this.#below(260)])],
    controlTokens: [1, this.#model('controlTokens', () => [])],
    metadata: [1, this.#model('metadata', () => [])],
    render: [3, this.#model('render', () => [this.#renderRequest(), ...this.#cancelling()], 'replies')],
    parseReply: [
      2,
      this.#model('parseReply', () => [
        { rendered: this.#kind('replies'), text: this.#text(), ...this.#some({ partial: () => true }) },
        ...this.#cancelling(),
      ]),
    ],
    jsonSchemaToGrammar: [
      1,
      () => this.#plain(() => [this.#mostly(() => this.#schema()), ...this.#cancelling()], jsonSchemaToGrammar),
    ],
    decode: [30, this.#decode],
    logits: [3, this.#context('logits', () => [this.#below(8)])],
    logProbabilities: [3, this.#context('logProbabilities', () => [this.#below(8), this.#below(20)])],
    setLoras: [
      2,
      this.#context('setLoras', () => [
        [{ adapter: this.#kind('loras'), ...this.#some({ scale: () => this.#random() }) }].slice(this.#below(2)),
      ]),
    ],
    removeSequence: [
      8,
      this.#context('removeSequence', () => [
        this.#sequence(),
        ...[this.#below(40), this.#below(40)].slice(this.#below(3)),
      ]),
    ],
    copySequence: [4, this.#context('copySequence', () => [this.#sequence(), this.#sequence()])],
    keepSequence: [1, this.#context('keepSequence', () => [this.#sequence()])],
    positionRange: [2, this.#context('positionRange', () => [this.#sequence()])],
    clear: [2, this.#context('clear', () => [])],
    captureSequence: [8, this.#capture],
    restoreSequence: [
      8,
      this.#context('restoreSequence', () => [this.#sequence(), this.#kind('states'), ...this.#cancelling()]),
    ],
    loadFile: [3, this.#context('loadFile', () => [this.#sequence(), this.#kind('files'), ...this.#cancelling()])],
    counters: [1, this.#context('counters', () => [])],
    writeFile: [3, this.#write],
    readFile: [
      3,
      () =>
        this.#plain(
          () => [
            this.#chance(0.8) ? this.#kind('files') : this.#anyPath(),
            this.#mostly(() => this.#some({ signal: () => this.#signal(), unverified: () => false })),
          ],
          (...args) => SequenceState.readFile(...args),
          'states',
        ),
    ],
    readMetadata: [
      1,
      () =>
        this.#plain(
          () => [this.#chance(0.8) ? this.#kind('files') : this.#anyPath()],
          (path) => SequenceState.readMetadata(path),
        ),
    ],
    reserve: [
      1,
      () =>
        this.#plain(
          () => [this.#mostly(() => this.#below(1 << 24))],
          (bytes) => SequenceState.reserve(bytes),
        ),
    ],
    tryAcquire: [
      2,
      () => {
        const { directory } = this.#options;
        const path = this.#chance(0.8) ? join(directory, `${this.#below(4)}.lock`) : this.#anyPath();
        // The files of other calls may be locked too: that hurts nobody.
        const call = this.#plain(
          () => [this.#mostly(() => path)],
          (given) => FileLock.tryAcquire(given),
        );
        return { ...call, keep: (lock) => lock && this.#keep('locks', lock) };
      },
    ],
    release: [1, () => this.#on('locks', 'release', () => [])],
    share: [2, this.#state('share', () => [], 'states')],
    accept: [2, () => this.#on('samplers', 'accept', () => [this.#tokens(this.#below(9))])],
    reset: [2, () => this.#on('samplers', 'reset', () => [])],
    getters: [3, this.#getters],
    foreign: [1, this.#foreign],
    setNativeLogger: [
      1,
      () =>
        this.#plain(
          () => [
            this.#mostly(() => () => {}),
            this.#mostly(() => ({ level: this.#pick(['error', 'warn', 'info', 'debug']) })),
          ],
          setNativeLogger,
        ),
    ],
    close: [4, this.#close],
  }).flatMap(([kind, [weight, make]]) => Array.from({ length: weight }, () => [kind, make]));
}

/** A few logits behind a prompt: they must be the same before and after all that. */
async function answer(path) {
  const model = await Model.load({ path });
  const context = await model.createContext({ kvCells: 256 });
  const length = 40;
  const positions = Int32Array.from({ length }, (_, at) => at);
  const outputs = new Uint8Array(length).fill(1, length - 1);
  await context.decode({ tokens: positions, positions, sequences: new Int32Array(length), outputs });
  const logits = await context.logits(length - 1);
  await model.close();
  return logits;
}

async function main() {
  const [seed, calls, models, directory, lora] = process.argv.slice(2);
  const paths = JSON.parse(models);
  const [garbage, halfModel] = ['garbage', 'half'].map((name) => join(directory, name));
  await writeFile(garbage, Buffer.from(Array.from({ length: 5000 }, (_, at) => (at * 31) % 256)));
  await writeFile(halfModel, readFileSync(paths[0]).subarray(0, 100_000));
  process.chdir(directory); // where relative paths lead
  const options = {
    seed: Number(seed),
    calls: Math.ceil(calls / (WORKERS + 1)),
    models: paths,
    directory,
    garbage,
    halfModel,
    lora,
  };

  const before = await answer(paths[0]);
  const workers = Array.from(
    { length: WORKERS },
    (_, at) => new Worker(new URL(import.meta.url), { workerData: { ...options, thread: at + 1 } }),
  );
  const player = new Player({ ...options, thread: 0 });
  const reports = Promise.all(workers.map(async (worker) => (await once(worker, 'message'))[0]));
  const exits = Promise.all(workers.map((worker) => once(worker, 'exit')));
  await player.play();
  const all = [player, ...(await reports)];
  await exits;
  assert.deepEqual(await answer(paths[0]), before, 'the same logits as before');

  const total = {};
  for (const { outcomes } of all) {
    for (const [kind, [values, errors]] of Object.entries(outcomes)) {
      total[kind] = [(total[kind]?.[0] ?? 0) + values, (total[kind]?.[1] ?? 0) + errors];
    }
  }
  process.stdout.write(JSON.stringify(total));
  const failures = all.flatMap((each) => each.failures);
  if (failures.length > 0) {
    process.stderr.write(failures.join('\n\n'));
    process.exitCode = 1;
  }
}

if (isMainThread) {
  await main();
} else {
  const player = new Player(workerData);
  await player.play();
  parentPort.postMessage({ outcomes: player.outcomes, failures: player.failures });
}
