import { rm } from 'node:fs/promises';

/** How many objects of each kind a thread keeps, open or closed. */
const LIMITS = { models: 3, contexts: 4, states: 12, samplers: 8, loras: 2, replies: 4, files: 6, locks: 3 };

/** The kinds of objects that a model's `close()` closes. */
const OF_A_MODEL = ['models', 'contexts', 'samplers', 'loras'];

/** The objects that the calls of one thread have created. Later calls use them. */
export class Objects {
  #chance;
  #lists = Object.fromEntries(Object.keys(LIMITS).map((kind) => [kind, []]));

  constructor(chance) {
    this.#chance = chance;
  }

  add(kind, value) {
    const list = this.#lists[kind];
    list.push(value);
    if (list.length > LIMITS[kind]) this.#drop(kind, list.shift());
  }

  /** Returns a random object of a kind; undefined if there is no such object. */
  pick(kind) {
    return this.#chance.pick(this.#lists[kind]);
  }

  all() {
    return Object.values(this.#lists).flat();
  }

  /**
   * Removes a closed object. If the object is a model, removes all models, contexts, samplers and adapters, because the
   * lists do not say which of them the model's `close()` has closed.
   */
  forget(kind, object) {
    for (const each of kind === 'models' ? OF_A_MODEL : [kind])
      this.#lists[each] = this.#lists[each].filter((other) => kind !== 'models' && other !== object);
  }

  async closeAll() {
    const { models, states, samplers, loras, locks } = this.#lists;
    await Promise.all(models.map((model) => model.close()));
    for (const object of [...states, ...samplers, ...loras]) object.close();
    for (const lock of locks) lock.release();
  }

  /** Closes most objects, and leaves some to the garbage collector. Models are large, so they are always closed. */
  #drop(kind, value) {
    if (kind === 'files') void rm(value, { force: true });
    else if (kind === 'locks') value.release();
    else if (kind !== 'replies' && (kind === 'models' || this.#chance.happens(0.8))) void value.close();
  }
}
