// Deterministic pseudo-random weights. Only integer arithmetic, +, -, * and sqrt are used, whose results ECMAScript
// fixes exactly: a micro model is the same bytes on every machine.

/**
 * Approximately normal values (the sum of four uniform ones: mean 0, no tail beyond 3.5 deviations).
 *
 * @param {string} seed different seeds give unrelated sequences
 * @param {number} count
 * @param {number} deviation standard deviation
 */
export function normal(seed, count, deviation) {
  const next = uniformSource(seed);
  const scale = deviation * Math.sqrt(3); // four uniforms on [0, 1) have a variance of 4/12
  return Float32Array.from({ length: count }, () => (next() + next() + next() + next() - 2) * scale);
}

/**
 * @param {string} seed
 * @param {number} count
 * @param {number} low
 * @param {number} high
 */
export function uniform(seed, count, low, high) {
  const next = uniformSource(seed);
  return Float32Array.from({ length: count }, () => low + next() * (high - low));
}

/**
 * @param {number} count
 * @param {number} value
 */
export function constant(count, value) {
  return new Float32Array(count).fill(value);
}

/**
 * The generator sfc32 (Chris Doty-Humphrey's PractRand), started from hashes of the seed.
 *
 * @param {string} seed
 * @returns {() => number} values in [0, 1)
 */
function uniformSource(seed) {
  let a = hash(`${seed}/a`);
  let b = hash(`${seed}/b`);
  let c = hash(`${seed}/c`);
  let counter = 1;
  const next = () => {
    const value = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + value) | 0;
    return (value >>> 0) / 2 ** 32;
  };
  for (let round = 0; round < 12; round++) next(); // as its author advises, to mix similar seeds apart
  return next;
}

/**
 * FNV-1a, 32 bits.
 *
 * @param {string} text
 */
function hash(text) {
  let state = 0x811c9dc5;
  for (const byte of Buffer.from(text)) state = Math.imul(state ^ byte, 0x01000193);
  return state;
}
