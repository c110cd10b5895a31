/**
 * The project's own source files as the architecture and tidy tests see them: found on disk, parsed once with the real
 * TypeScript grammar. Imports include `import type` and `import('…')` types, which a transpiler would drop.
 */
import { dirname, join, normalize } from 'node:path'
import { type Program, parseSync, Visitor } from 'oxc-parser'

export type SourceFile = {
  readonly path: string
  readonly text: string
  readonly program: Program
  readonly comments: readonly { readonly value: string; readonly start: number; readonly end: number }[]
  /** As written, with the path inside the project for relative ones. */
  readonly imports: readonly { readonly specifier: string; readonly target: string | undefined }[]
}

export const root: string = normalize(join(import.meta.dir, '..'))

/** Paths inside the project that match the glob, sorted. */
export const filesMatching = (glob: string): string[] =>
  [...new Bun.Glob(glob).scanSync({ cwd: root, dot: true })]
    .filter((path) => !/(^|\/)(node_modules|dist|\.git|\.tools|\.millrace)\//.test(path))
    .sort()

export async function parseSources(glob: string): Promise<SourceFile[]> {
  return Promise.all(
    filesMatching(glob).map(async (path) => parse(path, await Bun.file(join(root, path)).text())),
  )
}

function parse(path: string, text: string): SourceFile {
  const { program, module, comments, errors } = parseSync(path, text)
  if (errors.length > 0) throw new Error(`${path} does not parse: ${errors[0]?.message}`)
  const specifiers = new Set([
    ...module.staticImports.map((entry) => entry.moduleRequest.value),
    ...module.staticExports.flatMap((entry) =>
      entry.entries.flatMap((name) => name.moduleRequest?.value ?? []),
    ),
  ])
  new Visitor({
    TSImportType: (node) => void specifiers.add(node.source.value),
    ImportExpression: (node) => {
      if (node.source.type === 'Literal') specifiers.add(String(node.source.value))
    },
  }).visit(program)
  const imports = [...specifiers].map((specifier) => ({
    specifier,
    target: specifier.startsWith('.') ? join(dirname(path), specifier) : undefined,
  }))
  return { path, text, program, comments, imports }
}
