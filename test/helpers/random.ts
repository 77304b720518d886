/** Returns a generator of pseudo-random numbers from 0 to `below` - 1. The same seed gives the same numbers. */
export function random(seed: number): (below: number) => number {
  let state = seed * 2654435761 + 1;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) % below;
  };
}
