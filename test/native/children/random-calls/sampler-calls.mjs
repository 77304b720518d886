// Random calls of `Sampler`.
import { methodCalls } from './make-call.mjs';

export function samplerCalls(args) {
  const method = methodCalls(args, 'samplers');
  return {
    accept: [2, method('accept', () => [args.tokens(args.chance.below(9))])],
    reset: [2, method('reset', () => [])],
  };
}
