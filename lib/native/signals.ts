/**
 * Fires when one of them does. One of its own each time: many may listen at the same time, and a signal warns of its eleventh
 * listener.
 */
export function ownSignal(...signals: readonly (AbortSignal | undefined)[]): AbortSignal {
  return AbortSignal.any(signals.filter((signal) => signal !== undefined));
}

/** Fires when one of them does. */
export function eitherSignal(signal: AbortSignal, other: AbortSignal | undefined): AbortSignal {
  return other === undefined ? signal : ownSignal(signal, other);
}
