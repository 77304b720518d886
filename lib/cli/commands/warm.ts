import type { StartReport } from '../../cache/start-report.js';
import type { TemplateOptions } from '../../cache/template-cache.js';
import { command } from '../command.js';
import { openAgent } from '../open-agent.js';
import { MODEL_OPTIONS } from '../shared-options.js';
import { bytesText, countText, durationText } from '../words.js';

export const warm = command({
  name: 'warm',
  summary: 'prefills templates ahead of traffic, so that the first request starts warm',
  details: [
    'A file contains a template, a list of templates, or a recorded request. A template is a JSON object with ' +
      '`systemPrompt` and `tools`. A request is the body of a chat completion, of a message or of a response.',
  ],
  arguments: { files: { about: 'JSON files; `-` is standard input', variadic: true, completion: 'file' } },
  options: MODEL_OPTIONS,
  examples: [
    { line: 'warm support.json sales.json --model model.gguf', about: 'Prefill two templates.' },
    { line: 'warm request.json', about: 'Prefill the system prompt and the tools of a recorded request.' },
  ],
  json: {
    reports: 'one report for each template: `key`, `source`, `cache`, `templateTokens`, `cachedTokens`, `ms`, `reason`',
  },
  async run(call) {
    const { args, output, signal, step, io } = call;
    const { readTemplates } = await import('../recorded-request.js');
    const agent = await openAgent(call);
    try {
      const files = await Promise.all(args.files.map((path) => readTemplates(path, { model: agent, io, signal })));
      const templates = files.flat() as TemplateOptions[];
      const reports = await step('templates', (progress) =>
        agent.templateCache.warm(templates, {
          signal,
          onProgress: (done) =>
            progress.update({ fraction: done / templates.length, detail: `${done} of ${templates.length}` }),
        }),
      );
      output.result({ reports }, () => reports.map(reportLine));
    } finally {
      await agent.close();
    }
  },
});

function reportLine({ key, source, cache, templateTokens, bytes, ms, reason, notSaved }: StartReport): string {
  if (cache === 'bypass') {
    return `not cached: ${reason ?? 'there is no template'}`;
  }
  const size = bytes > 0 ? `, ${bytesText(bytes)}` : '';
  const saved = notSaved === undefined ? '' : `, not saved: ${notSaved}`;
  return `${key.slice(0, 16)}: ${countText(templateTokens)} tokens, ${source} in ${durationText(ms)}${size}${saved}`;
}
