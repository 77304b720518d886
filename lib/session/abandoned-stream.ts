/** Runs what is to be done once nobody can reach a stream any more. */
const registry = new FinalizationRegistry<() => void>((giveBack) => giveBack());

/**
 * A stream whose consumer takes a part and then lets go of it, without `return()`, never gets to its `finally`. What it holds
 * outside of itself is given back when it is collected.
 *
 * Keep what this returns in a variable of the stream's generator, and nowhere else: it lives as long as the generator does.
 * `giveBack` must not lead to the generator; an Error that was made in it does, by its stack.
 */
export class AbandonedStream {
  /** @param giveBack called once: by {@link end}, or after the collection */
  constructor(giveBack: () => void) {
    registry.register(this, giveBack, this);
  }

  /** The stream came to its end by itself. */
  end(): void {
    registry.unregister(this);
  }
}
