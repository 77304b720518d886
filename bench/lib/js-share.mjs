// Measures how busy the JavaScript thread is while llama.cpp computes on other threads.

import { readFileSync } from 'node:fs';

/**
 * Starts a measurement. The returned function ends the measurement and returns two times in milliseconds:
 * - `active`: the time in which the thread did not wait for events (`performance.eventLoopUtilization`). `active`
 *   includes the time in which the thread was ready to run but had no core.
 * - `cpu`: the thread's processor time, including the time to wake up and to go to sleep. The source is
 *   `process.threadCpuUsage`, or the kernel's counter on Linux. NaN if neither is available.
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
