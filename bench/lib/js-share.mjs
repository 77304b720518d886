// What JavaScript's thread does while something else computes.

import { readFileSync } from 'node:fs';

/**
 * Begins to measure; call what it returns to end. Milliseconds:
 * - `active`: while the thread did not wait for events (`performance.eventLoopUtilization`): what it executed, and what it waited
 *   for a core in the middle of that
 * - `cpu`: what it executed, waking up and going to sleep included (`process.threadCpuUsage`, or what Linux counts for a thread);
 *   NaN where neither is known
 *
 * @returns {() => { active: number, cpu: number }}
 */
export function measureShare() {
  const cpu = threadCpuMs();
  const before = performance.eventLoopUtilization();
  return () => {
    const { active } = performance.eventLoopUtilization(before);
    return { active, cpu: threadCpuMs() - cpu };
  };
}

function threadCpuMs() {
  if (process.threadCpuUsage !== undefined) {
    const { user, system } = process.threadCpuUsage();
    return (user + system) / 1000;
  }
  try {
    return Number(readFileSync('/proc/thread-self/schedstat', 'utf8').split(' ')[0]) / 1e6;
  } catch {
    return Number.NaN;
  }
}
