/**
 * A route on the documentation page. One that stands for many commands or projections is told once, and beneath it each of them
 * with what is its own: so the page stays short.
 */
import { html } from 'hono/html'
import { PROBLEM_KINDS } from '../problem.ts'
import { ANSWER_HEADERS } from './answer-headers.ts'
import { curlCommand } from './curl-command.ts'
import type { DocumentOptions } from './document-options.ts'
import type { Operation } from './operations.ts'
import { problemAnswers } from './problem-answers.ts'
import type { Contents } from './route-entry.ts'
import { boundsText, type SchemasByName, sentence, typeText } from './schema-text.ts'
import { type Html, prose, schemaTree } from './schema-tree.ts'

export interface PageParts {
  readonly schemas: SchemasByName
  readonly options: DocumentOptions
}

/** Operations of one route: one, or one for each subject. */
export function routeSection(operations: readonly Operation[], parts: PageParts): Html {
  const [first] = operations
  if (first === undefined) return html``
  const { operationId, subject, route, method, template, summary, description, scope } = first
  const isScoped = parts.options.credentials && scope !== undefined && scope !== 'known'
  const id = subject === undefined ? `op-${operationId}` : `route-${route}`
  return html`<section id="${id}">
<h3><span class="method">${method}</span> <code>${template}</code></h3>
<p>${prose(sentence(summary))} ${prose(description ?? '')}${isScoped ? html` Needs scope <code>${scope}</code>.` : ''}</p>
${parameters(first)}${bodyOf(first, parts)}
<h4>Answers</h4>
<div class="wide"><table><thead><tr><th scope="col">Status</th><th scope="col">What it is</th></tr></thead><tbody>${answers(first, parts)}</tbody></table></div>
${subject === undefined ? example(first, parts) : operations.map((each) => subjectSection(each, parts))}
</section>
`
}

function subjectSection(operation: Operation, parts: PageParts): Html {
  const { operationId, subject = '', notes, body, answers: given } = operation
  const own = [body?.contents, ...given.map(({ contents }) => contents)].filter(
    (contents) => contents !== undefined && isOwn(contents),
  )
  return html`<h4 id="op-${operationId}"><code>${subject}</code></h4>
${notes.length === 0 ? '' : html`<p>${prose(notes.join(' '))}</p>`}${own.map((contents) => contentsOf(contents ?? {}, parts.schemas))}
${example(operation, parts)}`
}

function example(operation: Operation, { schemas, options }: PageParts): Html {
  return html`<pre>${curlCommand(operation, schemas, options)}</pre>`
}

/** True for what a command or a projection says. */
function isOwn(contents: Contents): boolean {
  return /"#\/components\/schemas\/(command|view)\./.test(JSON.stringify(contents))
}

function parameters({ parameters: all = [] }: Operation): Html {
  if (all.length === 0) return html``
  const rows = all.map(({ name, in: place, description, schema, required }) => {
    const kind = [typeText(schema), boundsText(schema)].filter((text) => text !== '').join(', ')
    return html`<tr><td><code>${name}</code></td>
<td>${place}${required ? ', required' : ''}</td>
<td>${prose(description)} <span class="soft">${kind}</span></td></tr>`
  })
  return html`<h4>Parameters</h4>
<div class="wide"><table><thead><tr><th scope="col">Name</th><th scope="col">In</th><th scope="col">Meaning</th></tr></thead><tbody>${rows}</tbody></table></div>`
}

function bodyOf({ body }: Operation, { schemas }: PageParts): Html {
  if (body === undefined) return html``
  const { required, description, contents } = body
  return html`<h4>Body${required ? '' : ' (optional)'}</h4>
${description === undefined ? '' : html`<p>${prose(description)}</p>`}${isOwn(contents) ? html`<p><code class="soft">${Object.keys(contents).join(', ')}</code> What it holds stands beneath, for each.</p>` : contentsOf(contents, schemas)}`
}

/** Types with one schema stand together. What is the subject's own stands with the subject. */
function contentsOf(contents: Contents, opened?: SchemasByName): Html {
  const types = new Map<string, string[]>()
  for (const [type, schema] of Object.entries(contents)) {
    const text = JSON.stringify(schema)
    types.set(text, [...(types.get(text) ?? []), type])
  }
  return html`${[...types.values()].map(
    (same) =>
      html`<div><code class="soft">${same.join(', ')}</code><br>${schemaTree(contents[same[0] ?? ''] ?? {}, opened)}</div>`,
  )}`
}

function answers(operation: Operation, { options }: PageParts): Html {
  const good = operation.answers.map(({ status, description, headers = [], contents }) => {
    const lines = headers.map(
      (name) =>
        html`<br><code>${name}</code> <span class="soft">${prose(ANSWER_HEADERS[name].description)}</span>`,
    )
    const body = contents === undefined || isOwn(contents) ? '' : contentsOf(contents)
    return html`<tr><td>${status}</td><td>${prose(description)}${lines}${body}</td></tr>`
  })
  const told = operation.answers.map(({ status }) => status)
  const bad = problemAnswers(operation, options)
    .filter(({ status }) => !told.includes(status))
    .map(({ status, names }) => {
      const lines = names.map(
        (name) =>
          html`<a href="#problem-${name}">${name}</a> <span class="soft">${PROBLEM_KINDS[name].title}.</span><br>`,
      )
      return html`<tr><td>${status}</td><td>${lines}</td></tr>`
    })
  return html`${good}${bad}`
}
