// docs/reference/http.md matches the schemas of the server. `npm run docs` generates the page again.
import { expect, it } from 'vitest';
import { httpReference } from '../../scripts/http-reference.mjs';
import { openApiDocument } from '../helpers/openapi.js';

it('the reference page of the HTTP API matches the schemas of the server', async () => {
  await expect(httpReference(openApiDocument)).toMatchFileSnapshot('../../docs/reference/http.md');
});
