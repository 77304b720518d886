// Measures how busy the JavaScript thread is while llama.cpp computes on other threads.

import { readFileSync } from 'node:fs';
import { Session } from 'node:inspector/promises';
import { median } from './trials.mjs';

/** Microseconds between two samples of the profiler. */
const SAMPLING_INTERVAL = 100;

/** The times of the JavaScript thread in named measures, in milliseconds per token. */
export class JavaScriptTimes {
  /** Set this to measure with V8's profiler from now on, instead of the clocks. */
  profiled = false;
  #byName = new Map();

  /**
   * Runs `work` and records the times of the JavaScript thread. Returns the milliseconds that `work` took.
   *
   * @param {string} name
   * @param {number} tokens the number of tokens that `work` generates
   * @param {() => Promise<unknown>} work
   */
  async measure(name, tokens, work) {
    const times = this.#byName.get(name) ?? { javaScript: [], active: [], cpu: [] };
    this.#byName.set(name, times);
    const begin = performance.now();
    if (this.profiled) {
      times.javaScript.push((await profileJavaScript(work)) / tokens);
    } else {
      const end = measureShare();
      await work();
      const { active, cpu } = end();
      times.active.push(active / tokens);
      times.cpu.push(cpu / tokens);
    }
    return performance.now() - begin;
  }

  /** Returns the medians of a measure. The first trial of each kind was a warm-up. */
  of(name) {
    const { javaScript, active, cpu } = this.#byName.get(name);
    const [javaScriptMs, jsMs, jsCpuMs] = [javaScript, active, cpu].map((values) => median(values.slice(1)));
    return { javaScriptMs, jsMs, jsCpuMs };
  }
}

/**
 * Starts a measurement. The returned function ends the measurement and returns two times in milliseconds:
 * - `active`: the time in which the thread did not wait for events (`performance.eventLoopUtilization`). `active`
 *   includes the time in which the thread was ready to run but had no core.
 * - `cpu`: the thread's processor time, including the time to wake up and to go to sleep. The source is
 *   `process.threadCpuUsage`, or the kernel's counter on Linux. NaN if neither is available.
 *
 * @returns {() => { active: number, cpu: number }}
 */
function measureShare() {
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

/**
 * Runs `work` under V8's profiler. Returns the milliseconds in which the thread ran JavaScript, native code that
 * JavaScript called, or the garbage collector. Waiting for events and for a core does not count.
 *
 * @param {() => Promise<unknown>} work
 */
async function profileJavaScript(work) {
  const session = new Session();
  session.connect();
  try {
    await session.post('Profiler.enable');
    await session.post('Profiler.setSamplingInterval', { interval: SAMPLING_INTERVAL });
    await session.post('Profiler.start');
    await work();
    const { profile } = await session.post('Profiler.stop');
    return busyMs(profile);
  } finally {
    session.disconnect();
  }
}

/** @param {import('node:inspector').Profiler.Profile} profile */
function busyMs({ nodes, samples = [], timeDeltas = [] }) {
  const idle = new Set(nodes.filter(({ callFrame }) => callFrame.functionName === '(idle)').map(({ id }) => id));
  // The first difference is the time in which the profiler starts.
  const busy = timeDeltas.filter((_, index) => index > 0 && !idle.has(samples[index]));
  return busy.reduce((sum, microseconds) => sum + microseconds, 0) / 1000;
}
