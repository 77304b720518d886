// Generates docs/reference/options.md. The types come from the schemas. The defaults and the texts come from the doc
// comments above the schemas.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';

const HEAD = `# Options

This page lists every option, grouped by the call that takes it. Each call validates its options, copies them and freezes the copy. A
wrong value or an unknown name causes an error that says what was expected. An option with the value \`undefined\` counts as absent.

This page is generated from the schemas in \`lib/\`. To change it, change a schema and run \`npm run docs\`.
`;

/**
 * @param {readonly { title: string, call?: string, shape: string, schema: object, about: string }[]} groups `shape` is
 *   the name of the constant in lib that declares the options of `schema`
 * @param {(schema: object) => string} expectedBy returns the words for the values that a schema accepts
 * @returns {string} the page
 */
export function optionsReference(groups, expectedBy) {
  const comments = readShapes(new URL('../lib', import.meta.url).pathname);
  const titles = new Set(groups.map(({ title }) => title));
  /** @returns the words that an error message uses, as a link if there is a group with the option's name */
  const typeOf = (name, option) => {
    const words = expectedBy(option).replace(/^an? /, '');
    return titles.has(name) ? `[${words}](#${name.toLowerCase()})` : words;
  };
  const sections = groups.map(({ title, shape, schema, about }) => {
    const rows = Object.entries(schema._zod.def.shape).map(([name, option]) => {
      const { text, fallback } = commentOf(comments, shape, name);
      requireSameDefault(`${shape}.${name}`, option, fallback);
      const cells = [`\`${name}\``, typeOf(name, option), isRequired(option) ? 'required' : fallback || 'none', text];
      return `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
    });
    return `## ${title}\n\n${about}\n\n| option | type | default | meaning |\n| --- | --- | --- | --- |\n${rows.join('\n')}\n`;
  });
  return [HEAD, ...sections].join('\n');
}

const isRequired = (option) => !option.safeParse(undefined).success;

/** Throws if the default in the doc comment differs from the default in the schema. */
function requireSameDefault(name, option, fallback) {
  const { type, defaultValue } = option._zod.def;
  const isLiteral = type === 'default' && !(typeof defaultValue === 'object' && defaultValue !== null);
  const literal = typeof defaultValue === 'string' ? `'${defaultValue}'` : String(defaultValue);
  if (isLiteral && fallback !== literal && !fallback.startsWith(`${literal} `)) {
    throw new Error(`Expected "@default ${literal}" in the doc comment of ${name}, got "${fallback}"`);
  }
}

function commentOf(comments, shape, name) {
  const found = comments.get(shape)?.get(name);
  if (found === undefined) throw new Error(`Expected a doc comment above \`${name}\` in the constant ${shape} of lib`);
  return found;
}

/** Returns the doc comments of all properties in the object literals of constants, by constant and property. */
function readShapes(directory) {
  const literals = new Map();
  for (const file of readdirSync(directory, { recursive: true })) {
    if (!file.endsWith('.ts')) continue;
    const source = ts.createSourceFile(file, readFileSync(join(directory, file), 'utf8'), ts.ScriptTarget.Latest, true);
    for (const statement of source.statements.filter(ts.isVariableStatement)) {
      for (const { name, initializer } of statement.declarationList.declarations) {
        if (initializer && ts.isObjectLiteralExpression(initializer)) literals.set(name.text, initializer);
      }
    }
  }
  const shapes = new Map();
  const read = (literal) =>
    new Map(
      literal.properties.flatMap((property) => {
        if (ts.isSpreadAssignment(property)) {
          const spread = literals.get(property.expression.getText());
          return spread === undefined ? [] : [...read(spread)];
        }
        return [[property.name.getText(), readComment(property)]];
      }),
    );
  for (const [name, literal] of literals) shapes.set(name, read(literal));
  return shapes;
}

function readComment(property) {
  const [comment] = ts.getJSDocCommentsAndTags(property).filter(ts.isJSDoc);
  if (comment === undefined) return undefined;
  const oneLine = (text) =>
    (ts.getTextOfJSDocComment(text) ?? '')
      .replace(/\{@link (\w+)\}/g, '`$1`')
      .replace(/\s+/g, ' ')
      .trim();
  const tag = comment.tags?.find(({ tagName }) => tagName.text === 'default');
  return { text: oneLine(comment.comment), fallback: oneLine(tag?.comment) };
}
