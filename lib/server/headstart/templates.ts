// The template cache over HTTP. Entries are named by their keys.
import type { Context } from 'hono';
import { z } from 'zod';
import type { CacheEntry, CacheEntryDetails } from '../../cache/disk/operations.js';
import type { TemplateCache, TemplateOptions } from '../../cache/template-cache.js';
import type { App, Services } from '../handler.js';
import { checkedBody } from '../http/checked-body.js';
import { HttpError } from '../http/http-error.js';
import { readJson } from '../http/json-body.js';
import { toolsOf } from '../openai/chat-request.js';
import { withParts } from '../served-model.js';
import { requireAdmin, requireReader } from './admin.js';

const KEY = /^[0-9a-f]{64}$/;

export const WARM = z.object({
  templates: z
    .array(
      z.object({
        systemPrompt: z.string().nullish().describe("The system prompt, by default the agent's."),
        tools: z
          .array(z.looseObject({ type: z.string() }))
          .nullish()
          .describe('Tools in the form of chat completions.'),
        tenant: z.string().min(1).nullish().describe('The tenant of the template, by default the tenant of the key.'),
      }),
    )
    .min(1),
});

export function addTemplates(app: App, services: Services): void {
  const { model, options } = services;
  const path = '/headstart/v1/templates';
  const cacheFor = (context: Context, allow: typeof requireAdmin): TemplateCache => {
    allow(context.get('client'), options);
    return withParts(model, 'templateCache').templateCache;
  };
  app.get(path, async (context) => {
    const entries = await cacheFor(context, requireReader).list();
    return context.json({ templates: entries.map(shown) });
  });
  app.get(`${path}/:key`, async (context) =>
    context.json(shown(await cacheFor(context, requireReader).inspect(keyOf(context)))),
  );
  app.post(`${path}/warm`, async (context) => warm(context, cacheFor(context, requireAdmin), services));
  app.post(`${path}/:key/pin`, async (context) => {
    const cache = cacheFor(context, requireAdmin);
    const { key } = await cache.inspect(keyOf(context)); // a pin of an unknown key would leave a file behind
    await cache.pin({ key });
    return context.json({ key, pinned: true });
  });
  app.post(`${path}/:key/unpin`, async (context) => {
    const key = keyOf(context);
    await cacheFor(context, requireAdmin).unpin({ key });
    return context.json({ key, pinned: false });
  });
  app.delete(`${path}/:key`, async (context) => {
    const key = keyOf(context);
    if (!(await cacheFor(context, requireAdmin).invalidate({ key }))) {
      throw new HttpError(404, 'entry_missing', 'No template has this key');
    }
    return context.json({ key, deleted: true });
  });
  app.post('/headstart/v1/verify', async (context) =>
    context.json(await cacheFor(context, requireAdmin).verify({ signal: context.req.raw.signal })),
  );
  app.post('/headstart/v1/prune', async (context) => {
    const cache = cacheFor(context, requireAdmin);
    const { raw } = context.req;
    const hasBody = raw.headers.has('content-type');
    return context.json(await cache.prune(hasBody ? ((await readJson(raw, options.maxBodyBytes)) as object) : {}));
  });
}

/** Warms templates with the tools of chat completions. The templates belong to the tenant of the key by default. */
async function warm(context: Context, cache: TemplateCache, { options, admission }: Services): Promise<Response> {
  const leave = admission.enter();
  try {
    const { raw } = context.req;
    const { templates } = checkedBody(WARM, await readJson(raw, options.maxBodyBytes));
    const own = context.get('client').tenant as string | undefined;
    const wanted = templates.map(({ systemPrompt, tools, tenant }) => ({
      tools: toolsOf(tools ?? []),
      ...(typeof systemPrompt === 'string' && { systemPrompt }),
      tenant: tenant ?? own,
    }));
    return context.json({ reports: await cache.warm(wanted as TemplateOptions[], { signal: raw.signal }) });
  } finally {
    leave();
  }
}

/** @throws HttpError 400. */
function keyOf(context: Context): string {
  const key = context.req.param('key') ?? '';
  if (!KEY.test(key)) {
    throw new HttpError(400, 'invalid_key', 'Expected the key of a template: 64 hex digits in lower case');
  }
  return key;
}

/** An entry without the name of its file. */
function shown<Entry extends CacheEntry | CacheEntryDetails>({ file: _, ...entry }: Entry): object {
  return entry;
}
