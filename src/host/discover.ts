/**
 * Finds what an application defines: every module in its workers folder is loaded, and what it exports counts.
 *
 * Files are taken in the order of their paths. Tests, declarations and names that start with `_` or `.` are left out, so
 * that a module may stand beside its test and its private parts.
 */
import { readdirSync, statSync } from 'node:fs'
import { join, relative } from 'node:path'
import { pathToFileURL } from 'node:url'
import { describeError, errorCode, MillraceError } from '../contracts/errors.ts'
import { buildCatalogue, type Catalogue, type Definition, isDefinition } from '../policies/catalogue.ts'

export interface Discovery {
  readonly catalogue: Catalogue
  /** Paths below the folder, in the order in which they were loaded. */
  readonly files: readonly string[]
}

const MODULE = /\.(ts|js|mts|mjs)$/
const LEFT_OUT = /(^[._])|(\.(test|spec)\.[^.]+$)|(\.d\.m?ts$)/
const FOLDERS_LEFT_OUT = ['node_modules']

/**
 * @throws MillraceError `config.invalid` when there is nothing to load or a module throws, and what `buildCatalogue` throws
 */
export async function discover(folder: string): Promise<Discovery> {
  const files = moduleFiles(folder)
  if (files.length === 0) {
    throw new MillraceError(
      'config.invalid',
      `There is no module in ${folder}: write one, run \`millrace init\`, or set MILLRACE_WORKERS_DIR.`,
    )
  }
  const definitions = new Set<Definition>()
  for (const file of files) {
    for (const definition of await definitionsOf(folder, file)) definitions.add(definition)
  }
  if (definitions.size === 0) {
    throw new MillraceError(
      'config.invalid',
      `No module in ${folder} exports a definition: export what defineCommand, defineHandler, defineProjection, … return.`,
    )
  }
  return { catalogue: buildCatalogue(definitions), files }
}

function moduleFiles(folder: string): string[] {
  if (statSync(folder, { throwIfNoEntry: false })?.isDirectory() !== true) {
    throw new MillraceError(
      'config.invalid',
      `There is no workers folder ${folder}: run \`millrace init\`, or set MILLRACE_WORKERS_DIR.`,
    )
  }
  const found: string[] = []
  const visit = (path: string): void => {
    for (const entry of readdirSync(path, { withFileTypes: true })) {
      if (LEFT_OUT.test(entry.name) || FOLDERS_LEFT_OUT.includes(entry.name)) continue
      const inner = join(path, entry.name)
      const isFolder = entry.isSymbolicLink() ? statSync(inner).isDirectory() : entry.isDirectory()
      if (isFolder) visit(inner)
      else if (MODULE.test(entry.name)) found.push(relative(folder, inner))
    }
  }
  visit(folder)
  return found.sort()
}

async function definitionsOf(folder: string, file: string): Promise<Definition[]> {
  let exported: Record<string, unknown>
  try {
    exported = (await import(pathToFileURL(join(folder, file)).href)) as Record<string, unknown>
  } catch (cause) {
    throw loadFailure(file, cause)
  }
  return Object.values(exported).flatMap(exportedDefinitions)
}

/** An export is a definition or a list of them. */
function exportedDefinitions(value: unknown): Definition[] {
  if (isDefinition(value)) return [value]
  return Array.isArray(value) ? value.filter(isDefinition) : []
}

/** A mistake that a `define…` found keeps its code and sentence; anything else is told with its first line. */
function loadFailure(file: string, cause: unknown): MillraceError {
  const own = errorCode(cause)
  if (own !== undefined && cause instanceof Error) {
    return new MillraceError(own, `In ${file}: ${cause.message}`, { cause })
  }
  const hint = /Cannot find (module|package)/i.test(String(cause))
    ? ' Is it installed? Try `bun install`.'
    : ''
  return new MillraceError(
    'config.invalid',
    `The module ${file} can't be loaded: ${describeError(cause)}.${hint}`,
    {
      cause,
    },
  )
}
