// Measures how busy the JavaScript thread is while llama.cpp computes on other threads.

import { readFileSync } from 'node:fs';

/**
 * Starts a measurement. Call the returned function to end it and to get, in milliseconds:
 * - `active`: the time in which the thread did not wait for events (`performance.eventLoopUtilization`). It includes the time
 *   in which the thread was ready to run but had no core.
 * - `cpu`: the time on a core, waking up and going to sleep included (`process.threadCpuUsage`, or the kernel's counter on
 *   Linux). NaN if neither is available.
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
