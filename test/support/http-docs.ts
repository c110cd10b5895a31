/**
 * docs/http.md, made of the tables of routes and of the parts in docs/http/ that are written by hand. Run as a script
 * (`bun run docs`) it writes the page.
 */
import { join } from 'node:path'
import type { JsonSchema } from '../../src/contracts/json-schema.ts'
import {
  PROBLEM_SCHEMA,
  problemAnswers,
  REFUSED_ITEM_SCHEMA,
} from '../../src/http/reference/problem-answers.ts'
import type { Contents, RouteEntry, RouteFamily } from '../../src/http/reference/route-entry.ts'
import { ADMIN_TABLE, PUBLIC_TABLE } from '../../src/http/reference/route-tables.ts'
import {
  asSchema,
  boundsText,
  membersOf,
  referredName,
  sentence,
  typeText,
} from '../../src/http/reference/schema-text.ts'
import { root } from '../source-files.ts'

export const PAGE_PATH: string = join(root, 'docs/http.md')

const part = (name: string): Promise<string> => Bun.file(join(root, 'docs/http', name)).text()

export async function httpDocs(): Promise<string> {
  const shared = PUBLIC_TABLE.families.filter((family) => ADMIN_TABLE.families.includes(family))
  const listeners: [string, string, readonly RouteFamily[]][] = [
    ['The public listener', PUBLIC_TABLE.description, PUBLIC_TABLE.families],
    ['The admin listener', ADMIN_TABLE.description, ADMIN_TABLE.families],
  ]
  const own = listeners.map(([title, text, families]): [string, string, readonly RouteFamily[]] => [
    title,
    text,
    families.filter((family) => !shared.includes(family)),
  ])
  const groups = [...own, ['Both listeners', 'The same on each.', shared] as const]
  const families = groups.flatMap(([, , each]) => each)
  const schemas = Object.assign(
    { Problem: PROBLEM_SCHEMA, RefusedItem: REFUSED_ITEM_SCHEMA },
    ...families.map((family) => family.schemas ?? {}),
  ) as Record<string, JsonSchema>
  return [
    '<!-- Made by `bun run docs` from src/http/reference/ and docs/http/. Edit those. -->',
    '# HTTP',
    'Every route, what it takes and what it answers; your own commands and views are told by `GET /openapi.json` and `GET /docs` of a running process.',
    ...groups.map(([title, , each]) => overview(title, each)),
    (await part('conventions.md')).trimEnd(),
    ...groups.flatMap(([title, text, each]) => [`## ${title}`, text, ...each.flatMap(familyText)]),
    '## Schemas',
    'A member is always there unless it is called optional. `payload`, `item` and `view` stand for what your application declares.',
    ...Object.entries(schemas).map(([name, schema]) => schemaText(name, schema)),
    (await part('security.md')).trimEnd(),
    '',
  ].join('\n\n')
}

/** Both listeners have them, and only the public one has limits. */
function isLimited({ route }: RouteEntry): boolean {
  const own = PUBLIC_TABLE.families.filter((family) => !ADMIN_TABLE.families.includes(family))
  return own.some(({ routes }) => routes.some((each) => each.route === route))
}

function placeOf({ path }: RouteEntry): string {
  return path.replace(/\/:(\w+)/g, '/{$1}')
}

function titleOf(entry: RouteEntry): string {
  return `${entry.method} ${placeOf(entry)}`
}

/** As GitHub makes it of a heading. */
function anchorOf(title: string): string {
  return title
    .toLowerCase()
    .replace(/[^\w\- ]/g, '')
    .replaceAll(' ', '-')
}

function overview(title: string, families: readonly RouteFamily[]): string {
  const rows = families
    .flatMap(({ routes }) => routes)
    .map(
      (entry) =>
        `| [\`${titleOf(entry)}\`](#${anchorOf(titleOf(entry))}) | ${entry.summary} | ${scopeText(entry)} |`,
    )
  return [`| ${title.toLowerCase()} | does | scope |`, '|---|---|---|', ...rows].join('\n')
}

function scopeText({ scope }: RouteEntry): string {
  if (scope === undefined) return 'open'
  return scope === 'known' ? 'any' : `\`${scope}\``
}

function familyText({ name, description, routes }: RouteFamily): string[] {
  return [`### ${name}`, description, ...routes.map(routeText)]
}

function routeText(entry: RouteEntry): string {
  const { summary, description = '', route, parameters = [], body } = entry
  const rows = parameters.map(
    ({ name, in: place, required, description: text, schema }) =>
      `| \`${name}\` | ${place}${required ? ', required' : ''} | ${cell(text)} ${typeCell(schema)} |`,
  )
  return [
    `#### ${titleOf(entry)}`,
    `${sentence(summary)} ${description}`.trim(),
    `Named \`${route}\` in metrics. Scope: ${scopeText(entry)}.`,
    ...(rows.length > 0 ? [['| parameter | in | meaning |', '|---|---|---|', ...rows].join('\n')] : []),
    ...(body === undefined
      ? []
      : [
          `Body${body.required ? '' : ', optional'}: ${body.description ?? ''} ${contentText(body.contents)}`.replace(
            / +/g,
            ' ',
          ),
        ]),
    ['| answer | what it is |', '|---|---|', ...answerRows(entry)].join('\n'),
  ].join('\n\n')
}

function answerRows(entry: RouteEntry): string[] {
  const good = entry.answers.map(({ status, description, headers = [], contents }) => {
    const told = headers.map((name) => `\`${name}\``).join(', ')
    const text = [description, contents === undefined ? '' : contentText(contents), told && `With ${told}.`]
    return `| ${status} | ${text.filter((each) => each !== '').join(' ')} |`
  })
  const taken = entry.answers.map(({ status }) => status)
  const bad = problemAnswers(entry, { credentials: true, limited: isLimited(entry) })
    .filter(({ status }) => !taken.includes(status))
    .map(({ status, names }) => {
      const links = names.map((name) => `[${name}](problems.md#${name})`).join(', ')
      return `| ${status} | ${links} |`
    })
  return [...good, ...bad]
}

function contentText(contents: Contents): string {
  return `${Object.entries(contents)
    .map(([type, schema]) => `\`${type}\`: ${typeCell(schema)}`)
    .join('; ')}.`
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|')
}

/** A link where it leads to a schema of this page. */
function typeCell(schema: JsonSchema): string {
  const items = asSchema(schema['items'])
  const name = referredName(schema)
  if (name !== undefined) return /^[A-Z]/.test(name) ? `[${name}](#${name.toLowerCase()})` : `\`${name}\``
  if (schema['type'] === 'array' && items !== undefined) return `array of ${typeCell(items)}`
  const bounds = boundsText(schema)
  const members = membersOf(schema).map((member) => `\`${member.name}\``)
  const inside = members.length > 0 ? ` of ${members.join(', ')}` : ''
  return `\`${cell(typeText(schema))}\`${inside}${bounds === '' ? '' : `, ${bounds}`}`
}

function schemaText(name: string, schema: JsonSchema): string {
  const { description } = schema
  const rows = memberRows(schema, '')
  return [
    `### ${name}`,
    ...(typeof description === 'string' ? [description] : []),
    ['| member | type | meaning |', '|---|---|---|', ...rows].join('\n'),
  ].join('\n\n')
}

/** Members of members stand beneath, by their path. */
function memberRows(schema: JsonSchema, path: string): string[] {
  return membersOf(schema).flatMap(({ name, schema: member, isRequired }) => {
    const { description } = member
    const place = `${path}${name}`
    const text = [isRequired ? '' : 'Optional.', typeof description === 'string' ? cell(description) : '']
    const items = asSchema(member['items'])
    return [
      `| \`${place}\` | ${memberType(member)} | ${text.filter((each) => each !== '').join(' ')} |`,
      ...memberRows(member, `${place}.`),
      ...(items === undefined ? [] : memberRows(items, `${place}[].`)),
    ]
  })
}

/** What stands beneath is not told twice. */
function memberType(member: JsonSchema): string {
  if (membersOf(member).length > 0) return '`object`'
  const items = asSchema(member['items'])
  return items !== undefined && membersOf(items).length > 0 ? 'array of `object`' : typeCell(member)
}

if (import.meta.main) {
  await Bun.write(PAGE_PATH, await httpDocs())
  console.log(`wrote ${PAGE_PATH}`)
}
