// Metrics for Prometheus. No metric has a label with text of prompts, names of tenants or keys.
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { AgentHealth } from '../../agent/agent-health.js';
import type { Admission } from '../http/admission.js';
import type { FinishedReply } from '../http/reply-events.js';
import { hasParts, type ServedModel } from '../served-model.js';

/** Upper bounds of the buckets for the time to the first token, in seconds. */
const FIRST_TOKEN_BUCKETS = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];

interface HealthMetric {
  name: string;
  help: string;
  Type: typeof Counter | typeof Gauge;
  /** The name of the label that distinguishes several values. */
  label?: string;
  /** The value, or one value for each value of the label. */
  value(health: AgentHealth): number | Record<string, number>;
}

/**
 * Metrics that are read from `AgentServer.health` at each request for metrics. Names with a colon are those of
 * llama-server.
 */
const OF_HEALTH: readonly HealthMetric[] = [
  {
    name: 'llama_headstart_template_hits_total',
    help: 'Starts whose whole template was cached, by the source of its state.',
    Type: Counter,
    label: 'source',
    value: ({ templateCache }) => templateCache.hitsByTier,
  },
  {
    name: 'llama_headstart_template_misses_total',
    help: 'Starts that prefilled their template or a part of it.',
    Type: Counter,
    value: ({ templateCache }) => templateCache.misses,
  },
  {
    name: 'llama_headstart_template_seconds_saved_total',
    help: 'Time of the prefills of templates that were avoided.',
    Type: Counter,
    value: ({ templateCache }) => templateCache.prefillMsSaved / 1000,
  },
  {
    name: 'llama_headstart_template_evictions_total',
    help: 'Templates that were evicted, by tier.',
    Type: Counter,
    label: 'tier',
    value: ({ templateCache }) => templateCache.evictions,
  },
  ...alsoNamed('llamacpp:requests_deferred', {
    name: 'llama_headstart_requests_waiting',
    help: 'Requests that wait for a sequence, for KV cells, or for the next decode.',
    Type: Gauge,
    value: ({ queueLength }) => queueLength,
  }),
  {
    name: 'llama_headstart_kv_cells',
    help: 'Cells of the KV cache, by state.',
    Type: Gauge,
    label: 'state',
    value: ({ kvCells: { used, free } }) => ({ used, free }),
  },
  ...alsoNamed('llamacpp:predicted_tokens_seconds', {
    name: 'llama_headstart_tokens_per_second',
    help: 'Reply tokens per second of all requests, averaged over the last ten seconds.',
    Type: Gauge,
    value: ({ tokensPerSecond }) => tokensPerSecond,
  }),
  {
    name: 'llama_headstart_threads',
    help: 'Threads that compute, by work: decode of replies, prefill of prompts.',
    Type: Gauge,
    label: 'work',
    value: ({ threads: { decode, prefill } }) => ({ decode: decode.threads, prefill: prefill.threads }),
  },
  {
    name: 'llama_headstart_thread_changes_total',
    help: 'Changes of the number of threads, by reason: decodes became slower or faster, or a routine probe.',
    Type: Counter,
    label: 'reason',
    value: ({ threads: { decode, prefill } }) => ({
      slower: decode.changes.slower + prefill.changes.slower,
      faster: decode.changes.faster + prefill.changes.faster,
      routine: decode.changes.routine + prefill.changes.routine,
    }),
  },
  {
    name: 'llamacpp:n_decode_total',
    help: 'Decodes since the start.',
    Type: Counter,
    value: ({ decodes }) => decodes,
  },
];

/** A metric of this package, and the same metric under llama-server's name. */
function alsoNamed(name: string, metric: HealthMetric): HealthMetric[] {
  return [metric, { ...metric, name, help: `The same as ${metric.name}.` }];
}

/** The metrics of one handler. */
export class Metrics {
  readonly #registry = new Registry();
  readonly #promptTokens: Counter<'source'>;
  readonly #replyTokens: Counter;
  readonly #firstToken: Histogram;
  readonly #errors: Counter<'status'>;
  /** llama-server's names of the numbers of tokens. */
  readonly #processed: Counter;
  readonly #predicted: Counter;

  constructor(model: ServedModel, admission: Admission) {
    const registers = [this.#registry];
    const counter = <Label extends string>(name: string, help: string, labelNames: Label[] = []) =>
      new Counter<Label>({ name, help, labelNames, registers });
    this.#promptTokens = counter('llama_headstart_prompt_tokens_total', 'Tokens of prompts: reused or prefilled.', [
      'source',
    ]);
    this.#replyTokens = counter('llama_headstart_reply_tokens_total', 'Tokens of replies.');
    this.#errors = counter('llama_headstart_errors_total', 'Requests that failed, by HTTP status.', ['status']);
    this.#processed = counter('llamacpp:prompt_tokens_total', 'Tokens of prompts that were prefilled.');
    this.#predicted = counter('llamacpp:tokens_predicted_total', 'The same as llama_headstart_reply_tokens_total.');
    this.#firstToken = new Histogram({
      name: 'llama_headstart_time_to_first_token_seconds',
      help: 'Time from the beginning of a request to the first token of its reply.',
      buckets: FIRST_TOKEN_BUCKETS,
      registers,
    });
    for (const name of ['llama_headstart_requests_in_progress', 'llamacpp:requests_processing']) {
      const help = 'Requests for replies that are answered or wait.';
      const collect = () => gauge.set(admission.inProgress);
      const gauge: Gauge = new Gauge({ name, help, registers, collect });
    }
    if (hasParts(model, 'health')) {
      for (const metric of OF_HEALTH) {
        addHealthMetric(this.#registry, metric, () => model.health());
      }
    }
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** All metrics in the text format of Prometheus. */
  text(): Promise<string> {
    return this.#registry.metrics();
  }

  /** Counts a reply at its end. */
  onReply({ usage }: FinishedReply): void {
    const { inputTokens, cachedInputTokens, outputTokens, firstTokenMs } = usage;
    const prefilled = inputTokens - cachedInputTokens;
    this.#promptTokens.inc({ source: 'reused' }, cachedInputTokens);
    this.#promptTokens.inc({ source: 'prefilled' }, prefilled);
    this.#replyTokens.inc(outputTokens);
    this.#processed.inc(prefilled);
    this.#predicted.inc(outputTokens);
    if (outputTokens > 0) {
      this.#firstToken.observe(firstTokenMs / 1000);
    }
  }

  /** Counts a failed request. Statuses under 400 are not failures. */
  onStatus(status: number): void {
    if (status >= 400) {
      this.#errors.inc({ status });
    }
  }
}

function addHealthMetric(registry: Registry, metric: HealthMetric, health: () => AgentHealth): void {
  const { name, help, label, Type, value } = metric;
  const collect = () => {
    const current = value(health());
    const values = typeof current === 'number' ? [[undefined, current] as const] : Object.entries(current);
    collector.reset();
    for (const [labelValue, number] of values) {
      collector.inc(label === undefined ? {} : { [label]: labelValue }, number);
    }
  };
  const labelNames = label === undefined ? [] : [label];
  const collector: Counter | Gauge = new Type({ name, help, labelNames, registers: [registry], collect });
}
