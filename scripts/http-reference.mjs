// Generates docs/reference/http.md from the OpenAPI document of the server.

const HEAD = `# HTTP API

This page lists every endpoint of the [server](../guide/server.md). The server returns the same description as OpenAPI
from \`GET /openapi.json\`. Every optional field of a request may be null, and unknown fields are ignored.

This page is generated from the schemas in \`lib/server\`. To change it, change a schema and run \`npm run docs\`.
`;

const METHODS = ['get', 'post', 'delete'];
const REQUEST_FIELD = 'field of the request';
const ERRORS = ['OpenAiError', 'AnthropicError'];

/**
 * @param {any} document an OpenAPI document
 * @returns {string} the page
 */
export function httpReference(document) {
  const operations = operationsOf(document);
  const page = new Page(document.components.schemas, operations);
  const groups = document.tags.flatMap(({ name, description }) => [
    `## ${name}`,
    description,
    ...operations.filter(({ tags }) => tags.includes(name)).flatMap((operation) => page.operation(operation)),
  ]);
  return `${[HEAD.trim(), ...refusals(operations), ...groups, '## Shared objects', ...page.shared()].join('\n\n')}\n`;
}

/** All operations in order, with their method and path. */
function operationsOf({ paths }) {
  return Object.entries(paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => ({
      title: `${method.toUpperCase()} ${path}`,
      ...item[method],
    })),
  );
}

function refusals(operations) {
  const meanings = new Map(operations.flatMap(({ responses }) => Object.entries(responses)));
  meanings.delete('200');
  const rows = [...meanings]
    .sort(([a], [b]) => a - b)
    .map(([status, { description }]) => `| ${status} | ${description} |`);
  const [openAi, anthropic] = ERRORS.map((name) => `[${name}](#${name.toLowerCase()})`);
  return [
    '## Refusals',
    `The body of a refusal is an ${openAi}. On paths that begin with \`/v1/messages\` it is an ${anthropic}.`,
    ['| status | meaning |', '| --- | --- |', ...rows].join('\n'),
  ];
}

/** The names of the schemas of an operation's request, response and events. */
function namesIn({ requestBody, responses }) {
  const contents = [requestBody?.content, responses[200].content].flatMap((content) => Object.values(content ?? {}));
  return contents.map(({ schema }) => nameOf(schema)).filter((name) => name !== undefined);
}

/** Writes sections. Each schema is described in one section, to which other sections link. */
class Page {
  #schemas;
  /** The title of the section that describes a schema, by the name of the schema. */
  #places = new Map();
  /** The schemas that need a section of their own. */
  #shared = new Set(ERRORS);

  constructor(schemas, operations) {
    this.#schemas = schemas;
    for (const operation of operations) {
      for (const name of namesIn(operation)) {
        this.#places.set(name, this.#places.get(name) ?? operation.title);
      }
    }
  }

  operation({ title, summary, description, parameters = [], requestBody, responses }) {
    const { 200: ok, ...refused } = responses;
    const { 'application/json': body, 'text/event-stream': event } = ok.content;
    const statuses = Object.keys(refused).join(', ');
    return [
      `### ${title}`,
      [summary, description].filter(Boolean).join(' '),
      ...(parameters.length > 0 ? [table('parameter', parameters.map(parameterRow))] : []),
      ...(requestBody ? this.#contents(title, REQUEST_FIELD, requestBody.content['application/json']) : []),
      ...(body ? this.#contents(title, 'field of the response', body) : ['The response is text.']),
      ...(event
        ? [
            'With `stream: true`, the response is a stream of events.',
            ...this.#contents(title, 'field of an event', event),
          ]
        : []),
      ...(statuses === '' ? [] : [`Refusals: ${statuses}.`]),
    ];
  }

  /** The sections of the schemas that other sections refer to. */
  shared() {
    const sections = [];
    for (const name of this.#shared) {
      // the loop also visits names that are added meanwhile
      if (!this.#places.has(name)) {
        sections.push([name, [`### ${name}`, table('field', this.#fields(this.#schemas[name], '', false))]]);
      }
    }
    return sections.sort(([a], [b]) => (a < b ? -1 : 1)).flatMap(([, lines]) => lines);
  }

  #contents(title, header, { schema }) {
    const name = nameOf(schema);
    const place = this.#places.get(name);
    if (place !== title) {
      return [`Each ${header} is described at [${place}](#${anchorOf(place)}).`];
    }
    const described = this.#schemas[name];
    const forms = (described.anyOf ?? [described]).map((each) =>
      each.$ref ? `The fields of ${this.#type(each)}.` : this.#formOf(header, each),
    );
    return forms.flatMap((form, index) => (index === 0 ? [form] : ['or', form]));
  }

  #formOf(header, schema) {
    const rows = this.#fields(schema, '', header === REQUEST_FIELD);
    return rows.length === 0 ? 'A JSON object.' : table(header, rows);
  }

  /**
   * The fields of an object and of the objects in it, as rows of a table.
   *
   * @param {boolean} isRequest whether to say which fields are required, and not that all others may be null
   */
  #fields(schema, prefix, isRequest) {
    return Object.entries(schema.properties ?? {}).flatMap(([name, field]) => {
      const isRequired = isRequest && schema.required?.includes(name);
      const type = this.#type(isRequest ? withoutNull(field) : field);
      const meaning = [isRequired && 'Required.', field.description].filter(Boolean).join(' ');
      const { item, path } = itemOf(withoutNull(field), `${prefix}${name}`);
      return [[`\`${prefix}${name}\``, type, meaning], ...this.#fields(item, `${path}.`, isRequest)];
    });
  }

  /** The words for a type. */
  #type(schema) {
    const name = nameOf(schema);
    if (name !== undefined) {
      this.#shared.add(name);
      return `[${name}](#${anchorOf(this.#places.get(name) ?? name)})`;
    }
    if (schema.const !== undefined) return `\`${JSON.stringify(schema.const)}\``;
    if (schema.enum) return schema.enum.map((each) => `\`${each}\``).join(', ');
    const options = schema.anyOf ?? schema.oneOf;
    if (options) return options.map((each) => this.#type(each)).join(' or ');
    if (Array.isArray(schema.type)) return schema.type.join(' or ');
    if (schema.type === 'array') return schema.prefixItems ? 'pair' : `list of ${this.#type(schema.items ?? {})}`;
    return schema.type === 'integer' ? rangeOf(schema) : (schema.type ?? 'any');
  }
}

const parameterRow = ({ name, description }) => [`\`${name}\``, 'string', description];

function table(header, rows) {
  const lines = rows.map((cells) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`);
  return [`| ${header} | type | meaning |`, '| --- | --- | --- |', ...lines].join('\n');
}

/** The element of a list, or the schema itself. */
function itemOf(schema, path) {
  return schema.type === 'array' && schema.items
    ? itemOf(withoutNull(schema.items), `${path}[]`)
    : { item: schema, path };
}

function withoutNull(schema) {
  if (Array.isArray(schema.type)) {
    const types = schema.type.filter((type) => type !== 'null');
    return { ...schema, type: types.length === 1 ? types[0] : types };
  }
  const others = schema.anyOf?.filter(({ type }) => type !== 'null');
  if (others === undefined) return schema;
  return others.length === 1 ? others[0] : { ...schema, anyOf: others };
}

function rangeOf({ minimum, maximum }) {
  if (maximum !== undefined) return `integer, ${minimum} to ${maximum}`;
  return minimum === undefined ? 'integer' : `integer, ${minimum} or more`;
}

const nameOf = ({ $ref }) => $ref?.split('/').at(-1);

/** The anchor of a heading, as GitHub makes it. */
const anchorOf = (title) =>
  title
    .toLowerCase()
    .replace(/[^\w\s-]/g, '')
    .replaceAll(' ', '-');
