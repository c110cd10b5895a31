/**
 * The page about a listener, for people: one HTML file that asks for nothing else, has no script, and holds what the OpenAPI
 * document holds. Every text in it is escaped by the template, whoever wrote it.
 */
import { html, raw } from 'hono/html'
import { PROBLEM_KINDS } from '../problem.ts'
import { routeSection } from './docs-operation.ts'
import { DOCS_STYLE } from './docs-style.ts'
import type { DocumentOptions } from './document-options.ts'
import type { Operation, Operations } from './operations.ts'
import { type Html, isShown, prose, schemaTree } from './schema-tree.ts'

/** Nothing may be loaded, run, sent or framed; the one style is known by its hash. */
export const DOCS_POLICY: string = [
  "default-src 'none'",
  `style-src 'sha256-${new Bun.CryptoHasher('sha256').update(DOCS_STYLE).digest('base64')}'`,
  'img-src data:',
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ')

export async function docsPage(all: Operations, options: DocumentOptions): Promise<string> {
  const { table, schemas } = all
  const parts = { schemas, options }
  const page = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${table.title}</title>
<link rel="icon" href="data:,">
<style>${raw(DOCS_STYLE)}</style>
</head>
<body>
<a class="skip" href="#main">To the content</a>
<nav aria-label="Contents">${contents(all)}</nav>
<main id="main">
<h1>${table.title}</h1>
<p>${prose(table.description)} The same for programs: <a href="/openapi.json">/openapi.json</a>. Version ${options.version}.</p>
<p>In the examples, <code>$URL</code> is the address of this page without its path${options.credentials ? html`, <code>$KEY</code> your API key or token` : ''}.</p>
${table.families.map(
  ({ name, description }) => html`<h2 id="${anchor(name)}">${name}</h2>
<p>${prose(description)}</p>
${routesOf(all, name).map((operations) => routeSection(operations, parts))}`,
)}
<h2 id="problems">Problems</h2>
<p>Every refusal is <code>application/problem+json</code> (RFC 9457). Compare <code>type</code>.</p>
${problems()}
<h2 id="schemas">Schemas</h2>
${Object.entries(schemas)
  .filter(([name]) => isShown(name))
  .map(
    ([name, schema]) =>
      html`<section id="schema-${name}"><h3><code>${name}</code></h3>${schemaTree(schema)}</section>`,
  )}
</main>
</body>
</html>
`
  return String(await page)
}

function anchor(name: string): string {
  return name.toLowerCase().replaceAll(' ', '-')
}

/** The operations of a family, those of one route together. */
function routesOf({ operations }: Operations, family: string): Operation[][] {
  const own = operations.filter((operation) => operation.family === family)
  return [...Map.groupBy(own, ({ route }) => route).values()]
}

function contents({ table, operations }: Operations): Html {
  return html`${table.families.map(({ name }) => {
    const lines = operations
      .filter(({ family }) => family === name)
      .map(
        ({ operationId, method, path }) =>
          html`<li><a href="#op-${operationId}">${method} <code>${path}</code></a></li>`,
      )
    return html`<b><a href="#${anchor(name)}">${name}</a></b><ul>${lines}</ul>`
  })}<b><a href="#problems">Problems</a></b><br><b><a href="#schemas">Schemas</a></b>`
}

/** All of them: some stand inside of what is told of a command. */
function problems(): Html {
  return html`${Object.entries(PROBLEM_KINDS).map(
    ([name, { status, title, meaning }]) => html`<section id="problem-${name}">
<h3>${status} <a href="/problems/${name}"><code>${name}</code></a></h3><p>${prose(`${title}. ${meaning}`)}</p></section>`,
  )}`
}
