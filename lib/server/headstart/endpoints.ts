// The endpoints of this package's own API.
import { type App, jsonEndpoint, type Services } from '../handler.js';
import { explain } from './explain.js';
import { addTemplates } from './templates.js';

export function addHeadstart(app: App, services: Services): void {
  const { recent } = services;
  app.get('/headstart/v1/requests', (context) => context.json({ requests: recent.of(context.get('client')) }));
  app.post('/headstart/v1/explain', jsonEndpoint(services, explain));
  addTemplates(app, services);
}
