/** An operation as one line for the shell, with an example of its body. */
import type { DocumentOptions } from './document-options.ts'
import type { Operation } from './operations.ts'
import { JSON_TYPE } from './route-entry.ts'
import { exampleOf, type SchemasByName } from './schema-text.ts'

export function curlCommand(
  { method, path, body, scope }: Operation,
  schemas: SchemasByName,
  { credentials }: Pick<DocumentOptions, 'credentials'>,
): string {
  const place = path.replace(/\{(\w+)\}/g, (_, name: string) => name.toUpperCase())
  const words = ['curl', ...(method === 'GET' ? [] : ['-X', method]), `"$URL${place}"`]
  if (credentials && scope !== undefined) words.push('-H "Authorization: Bearer $KEY"')
  const schema = body?.contents[JSON_TYPE]
  if (schema === undefined) return words.join(' ')
  const example = JSON.stringify(exampleOf(schema, schemas))
  return [...words, `-H 'Content-Type: ${JSON_TYPE}'`, `-d ${quoted(example)}`].join(' ')
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`
}
