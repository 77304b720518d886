const registry = new FinalizationRegistry<() => void>((release) => release());

/**
 * Releases what a stream holds if the program drops the stream without reading it to its end and without `return()`. Then the
 * generator's `finally` never runs, but garbage collection finds the generator.
 *
 * Keep the object in a local variable of the generator and nowhere else: it then lives as long as the generator. `release`
 * must not refer to the generator. Neither must it refer to an Error created in the generator, because its stack does.
 */
export class AbandonedStream {
  /** @param release called after garbage collection, unless {@link end} was called before */
  constructor(release: () => void) {
    registry.register(this, release, this);
  }

  /** To be called when the stream ends by itself. */
  end(): void {
    registry.unregister(this);
  }
}
