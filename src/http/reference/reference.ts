/** The two texts of a listener's reference, made of its table of routes and the application's definitions. */
import type { Catalogue } from '../../policies/catalogue.ts'
import { jsonText } from '../answers.ts'
import { DOCS_POLICY, docsPage } from './docs-page.ts'
import type { DocumentOptions } from './document-options.ts'
import { openApiDocument } from './openapi-document.ts'
import { listOperations } from './operations.ts'
import { ADMIN_TABLE, PUBLIC_TABLE, type RouteTable } from './route-tables.ts'

export type Listener = 'public' | 'admin'

/** A text and the headers that belong to it. */
export interface ReferenceText {
  readonly text: string
  readonly headers: Readonly<Record<string, string>>
}

const TABLES: Readonly<Record<Listener, RouteTable>> = { public: PUBLIC_TABLE, admin: ADMIN_TABLE }

/** For programs. */
export function makeDocument(
  listener: Listener,
  catalogue: Catalogue,
  options: DocumentOptions,
): ReferenceText {
  const document = openApiDocument(listOperations(TABLES[listener], catalogue), options)
  return { text: jsonText(document), headers: { 'content-type': 'application/json' } }
}

/** For people. */
export async function makePage(
  listener: Listener,
  catalogue: Catalogue,
  options: DocumentOptions,
): Promise<ReferenceText> {
  return {
    text: await docsPage(listOperations(TABLES[listener], catalogue), options),
    headers: {
      'content-type': 'text/html; charset=utf-8',
      'content-security-policy': DOCS_POLICY,
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'no-referrer',
    },
  }
}
