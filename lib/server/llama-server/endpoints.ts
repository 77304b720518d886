// The endpoints that programs for llama-server call.
import type { Context } from 'hono';
import { type App, jsonEndpoint, type Services } from '../handler.js';
import { HttpError } from '../http/http-error.js';
import { propertiesOf } from './model-description.js';
import { applyTemplate, detokenize, tokenize } from './tokens.js';

/** Adds the health check. The health check needs no key, so add it in front of the check of keys. */
export function addHealth(app: App, { model }: Services): void {
  const health = (context: Context) => {
    if (model.health !== undefined && model.health().status !== 'ok') {
      throw new HttpError(503, 'unavailable', 'The server is shutting down');
    }
    return context.json({ status: 'ok' });
  };
  app.get('/health', health);
  app.get('/v1/health', health);
}

export function addLlamaServer(app: App, services: Services): void {
  const { model, metrics } = services;
  app.get('/props', (context) => context.json(propertiesOf(model)));
  app.post('/tokenize', jsonEndpoint(services, tokenize));
  app.post('/detokenize', jsonEndpoint(services, detokenize));
  app.post('/apply-template', jsonEndpoint(services, applyTemplate));
  app.get('/metrics', async (context) =>
    context.text(await metrics.text(), 200, { 'content-type': metrics.contentType }),
  );
}
