/** What signals were made of: Node.js refers to that weakly, and a time limit that was collected never fires. */
const sources = new WeakMap<AbortSignal, readonly AbortSignal[]>();

/**
 * Fires when one of them does. One of its own each time: many may listen at the same time, and a signal warns of its eleventh
 * listener.
 */
export function ownSignal(...signals: readonly (AbortSignal | undefined)[]): AbortSignal {
  const given = signals.filter((signal) => signal !== undefined);
  const own = AbortSignal.any(given);
  sources.set(own, given);
  return own;
}

/** Fires when one of them does. */
export function eitherSignal(signal: AbortSignal, other: AbortSignal | undefined): AbortSignal {
  return other === undefined ? signal : ownSignal(signal, other);
}
