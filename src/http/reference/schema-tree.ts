/** A JSON Schema as a tree to read: members under their object, choices under what chooses, references as links. */
import { html } from 'hono/html'
import type { JsonSchema } from '../../contracts/json-schema.ts'
import {
  asSchema,
  boundsText,
  membersOf,
  referredName,
  type SchemasByName,
  schemasIn,
  typeText,
} from './schema-text.ts'

export type Html = ReturnType<typeof html>

const DEPTH_MAX = 12

/** The items of bulk bodies all look alike, and what they hold is shown elsewhere. */
export function isShown(name: string): boolean {
  return !name.startsWith('item.')
}

/** What is found in `opened` stands beneath its name, too. */
export function schemaTree(schema: JsonSchema, opened: SchemasByName = {}): Html {
  const behind = opened[referredName(schema) ?? '']
  return html`${line(schema)}${below(behind ?? schema, 0)}`
}

/** Text with `code` in it. */
export function prose(text: string): Html {
  const parts = text.split('`')
  return html`${parts.map((part, index) => (index % 2 === 1 ? html`<code>${part}</code>` : part))}`
}

function branch(schema: JsonSchema, depth: number): Html {
  return html`${line(schema)}${depth < DEPTH_MAX ? below(schema, depth) : ''}`
}

function line(schema: JsonSchema): Html {
  const name = referredName(schema)
  const { description } = schema
  const bounds = boundsText(schema)
  return html`${name === undefined || !isShown(name) ? html`<code>${typeText(schema)}</code>` : html`<a href="#schema-${name}"><code>${name}</code></a>`}${
    bounds === '' ? '' : html` <span class="soft">${bounds}</span>`
  }${typeof description === 'string' ? html` ${prose(description)}` : ''}`
}

function below(schema: JsonSchema, depth: number): Html {
  const parts: Html[] = []
  const members = membersOf(schema)
  if (members.length > 0) {
    parts.push(
      html`<ul class="tree">${members.map(
        (member) =>
          html`<li><code><b>${member.name}</b></code>${member.isRequired ? '' : html` <span class="soft">optional</span>`} ${branch(member.schema, depth + 1)}</li>`,
      )}</ul>`,
    )
  }
  const nested = [
    ...[asSchema(schema['items']), asSchema(schema['additionalProperties'])].filter(
      (one) => one !== undefined,
    ),
    ...['prefixItems', 'oneOf', 'anyOf', 'allOf'].flatMap((keyword) => schemasIn(schema[keyword])),
  ]
  if (nested.length > 0) {
    parts.push(html`<ul class="tree">${nested.map((one) => html`<li>${branch(one, depth + 1)}</li>`)}</ul>`)
  }
  return html`${parts}`
}
