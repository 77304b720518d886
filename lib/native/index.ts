/**
 * The low-level API: load, tokenise, decode, capture, restore. Everything above it (template cache, sessions, agents) is
 * built on these classes alone.
 *
 * @packageDocumentation
 */
export { type ErrorCode, HeadstartError } from '../errors.js';
export * from './context.js';
export * from './log.js';
export * from './model.js';
export * from './state.js';
export * from './system.js';
